"""What x86-64 instructions do to a memory operand, by name, where its place does not tell.

Intel's syntax puts the destination first. So a memory operand in the first place is written, and in
any other place is read, but for the names below. Source: Intel SDM volume 2. (capstone's own
access flags are wrong for many vector, mask and store instructions.)
"""

from __future__ import annotations

from typing import Final, NamedTuple

from numatrace.record.operands.instruction import FLAGS, words

RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI = range(8)


class Reg(NamedTuple):
    """Slot of a register, bits of it that its name stands for, and the lowest of these."""

    slot: int
    bits: int
    low: int = 0


NO_ACCESS: Final = words(
    """lea nop clflush clflushopt clwb cldemote invlpg invlpga clzero monitor monitorx umonitor
    ud0 ud1 prefetch prefetchw prefetchwt1 prefetchnta prefetcht0 prefetcht1 prefetcht2
    bndmk bndcl bndcu bndcn vgatherpf0dps vgatherpf0dpd vgatherpf0qps vgatherpf0qpd
    vgatherpf1dps vgatherpf1dpd vgatherpf1qps vgatherpf1qpd vscatterpf0dps vscatterpf0dpd
    vscatterpf0qps vscatterpf0qpd vscatterpf1dps vscatterpf1dpd vscatterpf1qps
    vscatterpf1qpd"""
)
"""Names whose operand is an address, a hint, or a line to drop: nothing waits for data."""

READ_FIRST: Final = words(
    """cmp test bt push call jmp ljmp lcall mul imul div idiv fld fild fbld fadd fmul fcom fcomp
    fsub fsubr fdiv fdivr fiadd fimul ficom ficomp fisub fisubr fidiv fidivr fldcw fldenv frstor
    fxrstor fxrstor64 xrstor xrstor64 xrstors xrstors64 ldmxcsr vldmxcsr lgdt lidt lldt ltr lmsw
    verr verw cmpsb cmpsw cmpsd cmpsq outsb outsw outsd ptwrite vmptrld vmclear"""
)
"""Names that only read a memory operand in the first place."""

MODIFY_FIRST: Final = words(
    """add adc and or xor sub sbb inc dec neg not shl sal shr sar rol ror rcl rcr shld shrd xchg
    xadd cmpxchg cmpxchg8b cmpxchg16b bts btr btc"""
)
"""Names that read and write a memory operand in the first place."""

KEEP_FIRST: Final = READ_FIRST | words(
    """comiss comisd ucomiss ucomisd vcomiss vcomisd vucomiss vucomisd ptest vptest vtestps vtestpd
    ktestb ktestw ktestd ktestq kortestb kortestw kortestd kortestq wrfsbase wrgsbase movdir64b
    maskmovq maskmovdqu vmaskmovdqu invpcid out bndcl bndcu bndcn ud0 ud1 nop verr
    verw"""
) - {"imul"}
"""Names that leave a register in the first place as it is."""

WRITE_SECOND: Final = words("xchg xadd mulx")
"""Names that write a register in the second place too."""

ZERO_IDIOMS: Final = words(
    """xor sub pxor vpxor vpxord vpxorq xorps xorpd vxorps vxorpd psubb psubw psubd psubq vpsubb
    vpsubw vpsubd vpsubq pcmpgtb pcmpgtw pcmpgtd vpcmpgtb vpcmpgtw vpcmpgtd pcmpeqb pcmpeqw
    pcmpeqd pcmpeqq vpcmpeqb vpcmpeqw vpcmpeqd vpcmpeqq kxorb kxorw kxord kxorq"""
)
"""With one register twice, they wait for nothing."""

STRINGS: Final = {
    f"{name}{size}": (bytes_, source, target)
    for name, source, target in (
        ("movs", True, True),
        ("cmps", True, True),
        ("lods", True, False),
        ("stos", False, True),
        ("scas", False, True),
    )
    for size, bytes_ in (("b", 1), ("w", 2), ("d", 4), ("q", 8))
}
"""Bytes of one step of a string instruction, and whether rsi and rdi move on by them."""

ENDS: Final = words("ud0 ud1 ud2 hlt retf retfq int3 int1 sysret sysexit iret iretd iretq")
"""Names after which control does not go on."""

PUSHES: Final = words("push pushf pushfd pushfq call")
POPS: Final = words("pop popf popfd popfq ret")

MORE_WRITTEN: Final = {
    "xlatb": frozenset({RAX}),
    "enter": frozenset({RSP, RBP}),
    "cmpxchg": frozenset({RAX, FLAGS}),
    "cmp": frozenset({FLAGS}),
    "test": frozenset({FLAGS}),
}
"""Registers that capstone forgets."""
