/* SPDX-License-Identifier: GPL-2.0 */
/* Where followed threads run: exact time per node, every move between nodes, births and ends. */

BPF_RINGBUF_OUTPUT(sched_ring, SCHED_RING_PAGES);

struct oncpu_key {
	__s32 tid;
	__s32 node;
};
struct oncpu_total {
	__u64 ns;
	__s32 tgid;
	__s32 pad;
};
BPF_HASH(oncpu, struct oncpu_key, struct oncpu_total, MAX_THREADS);

/* Who runs on this CPU, and since when. */
struct running {
	__u64 start_ns;
	__s32 tid;
	__s32 node;
};
BPF_PERCPU_ARRAY(running, struct running, 1);

/* When counting began, 0 until then: what ran across that moment is counted from it. */
BPF_ARRAY(begin_ns, __u64, 1);

static __always_inline struct sched_record *reserve_sched(int code, __s32 tgid, __s32 tid)
{
	struct sched_record *r = sched_ring.ringbuf_reserve(sizeof(*r));

	if (!r) {
		lose(LOSS_SCHED_RING, 1);
		return 0;
	}
	__builtin_memset(r, 0, sizeof(*r));
	r->t_ns = bpf_ktime_get_ns();
	r->tgid = tgid;
	r->tid = tid;
	r->cpu = bpf_get_smp_processor_id();
	r->node = bpf_get_numa_node_id();
	r->from_node = NODE_UNKNOWN;
	r->code = code;
	return r;
}

static __always_inline void send_current(int code)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	struct sched_record *r;

	if (!followed(pid_tgid >> 32))
		return;
	r = reserve_sched(code, pid_tgid >> 32, (__s32)pid_tgid);
	if (r)
		sched_ring.ringbuf_submit(r, BPF_RB_NO_WAKEUP);
}

static __always_inline void add_oncpu(struct thread *t, __s32 tid, __s32 node, __u64 ns)
{
	struct oncpu_key key = {.tid = tid, .node = node};
	struct oncpu_total zero = {.tgid = t->tgid};
	struct oncpu_total *total = oncpu.lookup_or_try_init(&key, &zero);

	if (total)
		total->ns += ns; /* a thread runs on one CPU at a time */
	else
		lose(LOSS_ONCPU_MAP, 1);
}

/* A move is counted when the thread runs again on another node: that is when its memory turns
 * remote. sched_migrate_task also fires for moves that are undone before the thread runs. */
static __always_inline void runs_on(struct thread *t, __s32 tid, __s32 node)
{
	__s32 from = t->last_node;
	struct sched_record *r;

	if (from == node)
		return;
	t->last_node = node;
	if (from == NODE_UNKNOWN)
		return;
	r = reserve_sched(EV_MOVE, t->tgid, tid);
	if (!r)
		return;
	r->from_node = from;
	sched_ring.ringbuf_submit(r, BPF_RB_NO_WAKEUP);
}

static __always_inline void switch_out(struct running *now, __s32 tid, __s32 node, __u64 t_ns)
{
	struct thread *t = threads.lookup(&tid);
	int zero = 0;
	__u64 *begin = begin_ns.lookup(&zero);
	__u64 *unseen = unseen_turns.lookup(&zero);
	__u64 start_ns = now->start_ns;

	if (!t || !begin || !*begin || !unseen)
		return;
	runs_on(t, tid, node);
	/* The kernel runs no tracing program on a CPU that is in one already, or in a bpf(2) call,
	 * even if the task there was preempted. Then switches are missed, and when this turn began
	 * is not known: better count nothing. User space makes up for it from schedstat. */
	if (now->tid != tid && start_ns) {
		++*unseen;
		return;
	}
	if (start_ns < *begin)
		start_ns = *begin;
	if (t_ns > start_ns)
		add_oncpu(t, tid, node, t_ns - start_ns);
}

static __always_inline void switch_in(__s32 tid, __s32 node)
{
	struct thread *t = threads.lookup(&tid);

	if (t)
		runs_on(t, tid, node);
}

TRACEPOINT_PROBE(sched, sched_switch)
{
	__s32 node = bpf_get_numa_node_id();
	__u64 t_ns = bpf_ktime_get_ns();
	int zero = 0;
	struct running *now = running.lookup(&zero);

	if (!now)
		return KEEP;
	switch_out(now, args->prev_pid, node, t_ns);
	switch_in(args->next_pid, node);
	now->node = node;
	now->tid = args->next_pid;
	now->start_ns = t_ns;
	return KEEP;
}

TRACEPOINT_PROBE(task, task_newtask)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	__s32 ptgid = pid_tgid >> 32, tid = args->pid;
	struct thread child = {.last_node = NODE_UNKNOWN};
	struct sched_record *r;
	__u8 one = 1;

	if (!followed(ptgid))
		return KEEP;
	child.tgid = args->clone_flags & CLONE_THREAD ? ptgid : tid;
	if (child.tgid == tid) {
		if (!FOLLOW)
			return KEEP;
		if (procs.update(&tid, &one))
			lose(LOSS_THREAD_MAP, 1);
	}
	if (threads.update(&tid, &child))
		lose(LOSS_THREAD_MAP, 1);
	r = reserve_sched(EV_FORK, child.tgid, tid);
	if (!r)
		return KEEP;
	r->ptgid = ptgid;
	r->ptid = (__s32)pid_tgid;
	sched_ring.ringbuf_submit(r, BPF_RB_NO_WAKEUP);
	return KEEP;
}

TRACEPOINT_PROBE(sched, sched_process_exec)
{
	send_current(EV_EXEC);
	return KEEP;
}

TRACEPOINT_PROBE(sched, sched_process_exit)
{
	send_current(EV_EXIT);
	return KEEP;
}
