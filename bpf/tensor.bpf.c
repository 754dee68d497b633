/* SPDX-License-Identifier: GPL-2.0 */
/* Where a followed server puts its tensors: ggml_backend_tensor_alloc(buffer, tensor, addr).
 *
 * User space attaches on_tensor, detaches it, and makes sense of the bytes:
 * record/tensors/watch.py.
 */

BPF_RINGBUF_OUTPUT(tensor_ring, TENSOR_RING_PAGES);

/* How many more records each process may send. The graphs that it computes allocate tensors, too,
 * thousands at a time: without a limit they would fill the ring. User space raises the number by
 * those that were of use, and takes the probe off where it came to nothing. A ring of 1024 pages
 * holds more. The same number is in record/tensors/watch.py.
 */
#define TENSOR_ALLOWANCE 6000
BPF_HASH(tensor_left, __s32, __s64, MAX_PROCS);

static __always_inline bool may_send(__s32 tgid)
{
	__s64 allowance = TENSOR_ALLOWANCE;
	__s64 *left = tensor_left.lookup_or_try_init(&tgid, &allowance);

	if (!left || *left <= 0)
		return false;
	__sync_fetch_and_add(left, -1);
	return true;
}

/* The registers that hold arguments, as the kernel's struct pt_regs has them. */
#if defined(__aarch64__)
struct call_regs {
	__u64 regs[31];
	__u64 sp;
	__u64 pc;
	__u64 pstate;
};
#define ARG1(ctx) ((ctx)->regs[0])
#define ARG2(ctx) ((ctx)->regs[1])
#define ARG3(ctx) ((ctx)->regs[2])
#else
struct call_regs {
	__u64 r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di;
	__u64 orig_ax, ip, cs, flags, sp, ss;
};
#define ARG1(ctx) ((ctx)->di)
#define ARG2(ctx) ((ctx)->si)
#define ARG3(ctx) ((ctx)->dx)
#endif

#define HEAD_PART 64

/* The struct may end just before a page that is not there: then whatever parts can be read. */
static __always_inline void read_head(struct tensor_record *r, __u64 tensor)
{
	if (!bpf_probe_read_user(r->head, sizeof(r->head), (void *)tensor))
		return;
#pragma unroll
	for (int at = 0; at < (int)sizeof(r->head); at += HEAD_PART)
		bpf_probe_read_user((char *)r->head + at, HEAD_PART, (void *)(tensor + at));
}

int on_tensor(struct call_regs *ctx)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	__s32 tgid = pid_tgid >> 32;
	struct tensor_record *r;

	if (!followed(tgid) || !may_send(tgid))
		return 0;
	r = tensor_ring.ringbuf_reserve(sizeof(*r));
	if (!r) {
		lose(LOSS_TENSOR_RING, 1);
		return 0;
	}
	r->t_ns = bpf_ktime_get_ns();
	r->buffer = ARG1(ctx);
	r->addr = ARG3(ctx);
	read_head(r, ARG2(ctx));
	r->tgid = tgid;
	r->tid = (__s32)pid_tgid;
	r->code = EV_TENSOR_AT;
	tensor_ring.ringbuf_submit(r, BPF_RB_NO_WAKEUP);
	return 0;
}
