/* SPDX-License-Identifier: GPL-2.0 */
/* Page faults of followed processes: exact totals per thread and node, single records sampled. */

BPF_RINGBUF_OUTPUT(fault_ring, FAULT_RING_PAGES);

struct fault_key {
	__s32 tid;
	__s32 node;
};
struct fault_total {
	__u64 count;
	__u64 kernel_count;
	__u64 user_ip; /* of the last fault from user mode; 0: over. For access.bpf.c */
	__s32 tgid;
	__s32 pad;
};
BPF_HASH(fault_totals, struct fault_key, struct fault_total, MAX_THREADS);

/* Faults that no record has stood for yet, and how many a record is to stand for. */
BPF_PERCPU_ARRAY(fault_pending, __u64, 1);
BPF_ARRAY(fault_every, __u64, 1);

#define ERROR_WRITE 0x02
#define ERROR_INSTRUCTION 0x10
#define ACCESS_WRITE 1
#define ACCESS_INSTRUCTION 2
#define ACCESS_KERNEL 4

static __always_inline void count_fault(__s32 tgid, __s32 tid, __s32 node, __u64 ip, bool kernel)
{
	struct fault_key key = {.tid = tid, .node = node};
	struct fault_total zero = {.tgid = tgid};
	struct fault_total *total = fault_totals.lookup_or_try_init(&key, &zero);

	if (!total) {
		lose(LOSS_FAULT_MAP, 1);
		return;
	}
	total->count++; /* only this thread on this node writes here */
	if (kernel)
		total->kernel_count++;
	else
		total->user_ip = ip;
}

/* Faults that the record to be sent stands for, 0 while none is due. */
static __always_inline __u64 due_faults(void)
{
	int zero = 0;
	__u64 *pending = fault_pending.lookup(&zero);
	__u64 *every = fault_every.lookup(&zero);
	__u64 weight;

	if (!pending || !every)
		return 0;
	weight = ++*pending;
	if (weight < *every)
		return 0;
	*pending = 0;
	return weight;
}

static __always_inline void on_fault(unsigned long addr, unsigned long ip, unsigned long error,
				     __u8 mode)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	__s32 tgid = pid_tgid >> 32;
	struct fault_record *r;
	__s32 node;
	__u64 weight;

	if (!followed(tgid))
		return;
	node = bpf_get_numa_node_id();
	count_fault(tgid, (__s32)pid_tgid, node, ip, mode != 0);
	weight = due_faults();
	if (!weight)
		return;
	r = fault_ring.ringbuf_reserve(sizeof(*r));
	if (!r) {
		lose(LOSS_FAULT_RING, weight);
		return;
	}
	__builtin_memset(r, 0, sizeof(*r));
	r->t_ns = bpf_ktime_get_ns();
	r->addr = addr;
	r->ip = ip;
	r->weight = weight;
	r->tgid = tgid;
	r->tid = (__s32)pid_tgid;
	r->cpu = bpf_get_smp_processor_id();
	r->node = node;
	r->code = EV_FAULT;
	r->access = mode | (error & ERROR_WRITE ? ACCESS_WRITE : 0) |
		    (error & ERROR_INSTRUCTION ? ACCESS_INSTRUCTION : 0);
	fault_ring.ringbuf_submit(r, BPF_RB_NO_WAKEUP);
}

TRACEPOINT_PROBE(exceptions, page_fault_user)
{
	on_fault(args->address, args->ip, args->error_code, 0);
	return KEEP;
}

/* Faults that the kernel takes on a followed process's behalf: read() into fresh memory. */
TRACEPOINT_PROBE(exceptions, page_fault_kernel)
{
	if (!(args->address >> 63)) /* else a kernel address: not the process's memory */
		on_fault(args->address, args->ip, args->error_code, ACCESS_KERNEL);
	return KEEP;
}
