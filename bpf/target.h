/* SPDX-License-Identifier: GPL-2.0 */
/* Which threads are followed, and how records leave the kernel. */
#pragma once
#include "events.h"

/* What every program returns: 0 would hide the event from all others who trace it with perf. */
#define KEEP 1

#define NODE_UNKNOWN (-1)
#define CLONE_THREAD 0x00010000

/* Followed processes, and followed threads with the node each last ran on. User space puts in what
 * exists at attach; task_newtask adds what is born later. */
struct thread {
	__s32 tgid;
	__s32 last_node;
};
BPF_HASH(procs, __s32, __u8, MAX_PROCS);
BPF_HASH(threads, __s32, struct thread, MAX_THREADS);

/* One counter per reason for which something was counted but not kept. */
enum loss {
	LOSS_FAULT_RING,
	LOSS_SCHED_RING,
	LOSS_FAULT_MAP,
	LOSS_ONCPU_MAP,
	LOSS_THREAD_MAP,
	LOSS_MAX
};
BPF_PERCPU_ARRAY(losses, __u64, LOSS_MAX);

/* Turns on a CPU whose beginning was not seen: see switch_out. */
BPF_PERCPU_ARRAY(unseen_turns, __u64, 1);

static __always_inline void lose(int reason, __u64 events)
{
	__u64 *count = losses.lookup(&reason);

	if (count)
		*count += events;
}

static __always_inline __s32 current_tgid(void)
{
	return bpf_get_current_pid_tgid() >> 32;
}

static __always_inline bool followed(__s32 tgid)
{
	return procs.lookup(&tgid) != 0;
}
