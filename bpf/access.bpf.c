/* SPDX-License-Identifier: GPL-2.0 */
/* What followed threads are at when their CPU's clock ticks: registers and code, from which user
 * space works out the address of the memory access; in the kernel, what it is doing for them. */

BPF_RINGBUF_OUTPUT(access_ring, ACCESS_RING_PAGES);

struct access_settings {
	__u64 period_ns;	  /* between two ticks of a CPU; 0: keep no more */
	__u64 thread_base_offset; /* of the thread pointer in task_struct; 0: not known */
};
BPF_ARRAY(access_settings, struct access_settings, 1);

#define ACCESS_PAGE_FAULT 8
#define ACCESS_RECLAIM 16
#define ACCESS_INTERRUPT 32
#define NO_SYSCALL (-1)

/* Registers word by word: so a perf event's program gets them, and so the kernel saves the user's
 * at the top of the thread's kernel stack, at each entry (struct pt_regs in
 * arch/x86/include/uapi/asm and arch/arm64/include/asm; debuggers and assembler code hold it in
 * place). They are sent as they lie there: record/sampling/registers.py puts them in order. */
#if defined(ARCH_X86)
#define WORDS 21
#define SYSCALL_WORD 15 /* orig_ax */
#define IP_WORD 16
#define SP_WORD 19
#define FROM_USER(tick) ((tick)->word[17] & 3) /* cs */
#elif defined(ARCH_ARM64)
#define WORDS 34
#define IP_WORD 32
#define SP_WORD 31
#define FROM_USER(tick) (!((tick)->word[33] & 15)) /* pstate */
#endif

struct tick {
	__u64 word[WORDS];
};

/* The fault that brought a thread into the kernel, if it was one: page_fault_user saw this thread
 * fault at this instruction, and no tick has seen it in user mode since. */
static __always_inline bool in_page_fault(struct access_record *r)
{
	struct fault_key key = {.tid = r->tid, .node = r->node};
	struct fault_total *total = fault_totals.lookup(&key);

	return total && total->user_ip == r->ip;
}

static __always_inline void no_page_fault(struct access_record *r)
{
	struct fault_key key = {.tid = r->tid, .node = r->node};
	struct fault_total *total = fault_totals.lookup(&key);

	if (total)
		total->user_ip = 0;
}

#ifdef HAVE_TASK_PT_REGS
/* By number, because bcc may not know them: bpf_get_current_task_btf (kernel 5.11, commit
 * 3ca1032ab7ab) and bpf_task_pt_regs (kernel 5.15, commit dd6e10fbd9fb). */
static void *(*current_task_btf)(void) = (void *)158;
static void *(*task_pt_regs)(void *task) = (void *)175;

/* What the kernel does: a tick in a softirq is on the CPU's own interrupt stack, not on the
 * thread's. (Hard interrupts do not show: they keep the clock's away.) */
static __always_inline __u8 kernel_doing(struct access_record *r, __u64 stack_top, __u64 kernel_sp)
{
	__s32 tid = r->tid; /* older kernels take no key in a record */
	struct thread *t;

	if (stack_top - kernel_sp >= THREAD_BYTES)
		return ACCESS_INTERRUPT;
	t = threads.lookup(&tid);
	if (t && t->reclaims)
		return ACCESS_RECLAIM;
	if (r->syscall != NO_SYSCALL)
		return 0;
	return in_page_fault(r) ? ACCESS_PAGE_FAULT : ACCESS_INTERRUPT;
}

/* The verifier does not subtract pointers into the kernel, but forgets what they were in memory. */
static __always_inline __u64 as_number(struct access_record *r, void *pointer)
{
	volatile __u64 *scratch = &r->thread_base;
	__u64 number;

	*scratch = (__u64)pointer;
	number = *scratch;
	*scratch = 0;
	return number;
}

#ifdef ARCH_X86
static __always_inline void read_entry(struct access_record *r, void *saved)
{
	bpf_probe_read_kernel(r->regs, WORDS * sizeof(r->regs[0]), saved);
	r->ip = r->regs[IP_WORD];
	r->syscall = r->regs[SYSCALL_WORD];
}
#else
static __always_inline void read_entry(struct access_record *r, void *saved)
{
	struct {
		__u64 ip, pstate, orig_x0;
		__s32 syscall, unused;
	} rest;

	bpf_probe_read_kernel(r->regs, sizeof(r->regs), saved);
	bpf_probe_read_kernel(&rest, sizeof(rest), saved + sizeof(r->regs));
	r->ip = rest.ip;
	r->syscall = rest.syscall;
}
#endif

/* The state in which the thread entered the kernel. In user mode it was this tick that brought it
 * in, so that these are the registers of the tick itself. */
static __always_inline void save_registers(struct access_record *r, struct tick *tick)
{
	void *saved = task_pt_regs(current_task_btf());

	read_entry(r, saved);
	if (r->access & ACCESS_KERNEL)
		r->access |= kernel_doing(r, as_number(r, saved), tick->word[SP_WORD]);
	else
		r->syscall = NO_SYSCALL;
}
#else
/* Of a thread in the kernel nothing is known here. */
static __always_inline void save_registers(struct access_record *r, struct tick *tick)
{
	if (r->access & ACCESS_KERNEL)
		return;
#pragma unroll
	for (int i = 0; i < WORDS && i < (int)(sizeof(r->regs) / sizeof(r->regs[0])); i++)
		r->regs[i] = tick->word[i];
	r->ip = tick->word[IP_WORD];
}
#endif

static __always_inline void save_code(struct access_record *r)
{
	__u32 in_page = PAGE_SIZE - (r->ip & (PAGE_SIZE - 1));

	if (!bpf_probe_read_user(r->text, sizeof(r->text), (void *)r->ip))
		return;
	if (in_page < sizeof(r->text)) /* the next page may not be there */
		bpf_probe_read_user(r->text, in_page & (sizeof(r->text) - 1), (void *)r->ip);
}

static __always_inline void save_thread_base(struct access_record *r, __u64 offset)
{
	/* Right also for the thread that runs: the kernel writes it when the thread is created and
	 * in arch_prctl(2), and no C library sets the register by itself. */
	if (offset)
		bpf_probe_read_kernel(&r->thread_base, sizeof(r->thread_base),
				      (void *)(bpf_get_current_task() + offset));
}

static __always_inline struct access_record *reserve_access(__u64 period_ns)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	struct access_record *r;

	if (!followed(pid_tgid >> 32))
		return 0;
	r = access_ring.ringbuf_reserve(sizeof(*r));
	if (!r) {
		lose(LOSS_ACCESS_RING, 1);
		return 0;
	}
	__builtin_memset(r, 0, sizeof(*r));
	r->t_ns = bpf_ktime_get_ns();
	r->time_ns = period_ns;
	r->tgid = pid_tgid >> 32;
	r->tid = (__s32)pid_tgid;
	r->cpu = bpf_get_smp_processor_id();
	r->node = bpf_get_numa_node_id();
	r->syscall = NO_SYSCALL;
	r->code = EV_ACCESS;
	return r;
}

int access_tick(struct tick *tick)
{
	int zero = 0;
	struct access_settings *settings = access_settings.lookup(&zero);
	struct access_record *r;

	if (!settings || !settings->period_ns)
		return 0;
	r = reserve_access(settings->period_ns);
	if (!r)
		return 0;
	if (!FROM_USER(tick))
		r->access = ACCESS_KERNEL;
	save_registers(r, tick);
	if (!(r->access & ACCESS_KERNEL))
		no_page_fault(r);
	save_code(r);
	save_thread_base(r, settings->thread_base_offset);
	access_ring.ringbuf_submit(r, BPF_RB_NO_WAKEUP);
	/* Not KEEP: that would have perf prepare a sample of its own, and the event is ours alone.
	 */
	return 0;
}

static __always_inline void set_reclaims(__s32 reclaims)
{
	__s32 tid = (__s32)bpf_get_current_pid_tgid();
	struct thread *t = threads.lookup(&tid);

	if (t)
		t->reclaims = reclaims;
}

/* Each of these two runs at several tracepoints, whose fields nobody needs. */
int reclaim_begins(void *args)
{
	set_reclaims(1);
	return KEEP;
}

int reclaim_ends(void *args)
{
	set_reclaims(0);
	return KEEP;
}
