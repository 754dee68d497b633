/* SPDX-License-Identifier: GPL-2.0 */
/* NUMA balancing of followed threads; each probe only where the kernel has it. */

#define BALANCE_MOVED 0
#define BALANCE_SWAPPED 1
#define BALANCE_STUCK 2

static __always_inline void on_balance(__s32 tid, __s32 from_node, __s32 node, __u8 how)
{
	struct thread *t = threads.lookup(&tid);
	struct sched_record *r;

	if (!t)
		return;
	r = reserve_sched(EV_BALANCE, t->tgid, tid);
	if (!r)
		return;
	r->from_node = from_node;
	r->node = node;
	r->access = how;
	sched_ring.ringbuf_submit(r, BPF_RB_NO_WAKEUP);
}

#ifdef HAVE_SCHED_MOVE_NUMA
TRACEPOINT_PROBE(sched, sched_move_numa)
{
	on_balance(args->pid, args->src_nid, args->dst_nid, BALANCE_MOVED);
	return KEEP;
}
#endif

#ifdef HAVE_SCHED_SWAP_NUMA
TRACEPOINT_PROBE(sched, sched_swap_numa)
{
	on_balance(args->src_pid, args->src_nid, args->dst_nid, BALANCE_SWAPPED);
	on_balance(args->dst_pid, args->dst_nid, args->src_nid, BALANCE_SWAPPED);
	return KEEP;
}
#endif

#ifdef HAVE_SCHED_STICK_NUMA
TRACEPOINT_PROBE(sched, sched_stick_numa)
{
	on_balance(args->src_pid, args->src_nid, args->dst_nid, BALANCE_STUCK);
	return KEEP;
}
#endif
