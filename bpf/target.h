/* SPDX-License-Identifier: GPL-2.0 */
/* Which threads are followed, and how records leave the kernel. */
#pragma once
#include "events.h"

/* What every program returns: 0 would hide the event from all others who trace it with perf. */
#define KEEP 1

/* By number (kernel 5.5, commit 6ae08ae3dea2): at the sight of these two names bcc reads all of
 * /proc/kallsyms, which takes a tenth of a second. */
static long (*read_user)(void *to, __u32 size, const void *from) = (void *)112;
static long (*read_kernel)(void *to, __u32 size, const void *from) = (void *)113;
#define bpf_probe_read_user read_user
#define bpf_probe_read_kernel read_kernel

#define NODE_UNKNOWN (-1)
#define CLONE_THREAD 0x00010000

/* Followed processes, and followed threads with the node each last ran on. User space puts in what
 * exists at attach; task_newtask adds what is born later. */
struct thread {
	__s32 tgid;
	__s32 last_node;
	__s32 reclaims; /* it frees memory for itself now */
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
	LOSS_ACCESS_RING,
	LOSS_TENSOR_RING,
	LOSS_MAX
};
struct losses {
	__u64 events[LOSS_MAX];
};
BPF_PERCPU_ARRAY(losses, struct losses, 1);

/* Turns on a CPU whose beginning was not seen: see switch_out. */
BPF_PERCPU_ARRAY(unseen_turns, __u64, 1);

static __always_inline void lose(int reason, __u64 events)
{
	int zero = 0;
	struct losses *lost = losses.lookup(&zero);

	if (lost)
		lost->events[reason] += events;
}

static __always_inline __s32 current_tgid(void)
{
	return bpf_get_current_pid_tgid() >> 32;
}

static __always_inline bool followed(__s32 tgid)
{
	return procs.lookup(&tgid) != 0;
}
