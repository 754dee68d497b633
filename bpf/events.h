/* SPDX-License-Identifier: GPL-2.0 */
/* Generated from numatrace/model/events.py by scripts/gen-events: do not edit. */
#pragma once

#define EV_FAULT 0
#define EV_MOVE 2
#define EV_BALANCE 3
#define EV_FORK 4
#define EV_EXEC 5
#define EV_EXIT 6
#define EV_ACCESS 19
#define EV_TENSOR_AT 21

struct fault_record {
	__u64 t_ns;
	__u64 addr;
	__u64 ip;
	__u64 weight;
	__s32 tgid;
	__s32 tid;
	__s32 cpu;
	__s32 node;
	__s32 code;
	__u8 access;
	__u8 pad[3];
};
_Static_assert(__builtin_offsetof(struct fault_record, t_ns) == 0, "fault_record.t_ns");
_Static_assert(__builtin_offsetof(struct fault_record, addr) == 8, "fault_record.addr");
_Static_assert(__builtin_offsetof(struct fault_record, ip) == 16, "fault_record.ip");
_Static_assert(__builtin_offsetof(struct fault_record, weight) == 24, "fault_record.weight");
_Static_assert(__builtin_offsetof(struct fault_record, tgid) == 32, "fault_record.tgid");
_Static_assert(__builtin_offsetof(struct fault_record, tid) == 36, "fault_record.tid");
_Static_assert(__builtin_offsetof(struct fault_record, cpu) == 40, "fault_record.cpu");
_Static_assert(__builtin_offsetof(struct fault_record, node) == 44, "fault_record.node");
_Static_assert(__builtin_offsetof(struct fault_record, code) == 48, "fault_record.code");
_Static_assert(__builtin_offsetof(struct fault_record, access) == 52, "fault_record.access");
_Static_assert(__builtin_offsetof(struct fault_record, pad) == 53, "fault_record.pad");
_Static_assert(sizeof(struct fault_record) == 56, "fault_record");

struct sched_record {
	__u64 t_ns;
	__s32 tgid;
	__s32 tid;
	__s32 cpu;
	__s32 node;
	__s32 from_node;
	__s32 ptgid;
	__s32 ptid;
	__s32 code;
	__u8 access;
	__u8 pad[7];
};
_Static_assert(__builtin_offsetof(struct sched_record, t_ns) == 0, "sched_record.t_ns");
_Static_assert(__builtin_offsetof(struct sched_record, tgid) == 8, "sched_record.tgid");
_Static_assert(__builtin_offsetof(struct sched_record, tid) == 12, "sched_record.tid");
_Static_assert(__builtin_offsetof(struct sched_record, cpu) == 16, "sched_record.cpu");
_Static_assert(__builtin_offsetof(struct sched_record, node) == 20, "sched_record.node");
_Static_assert(__builtin_offsetof(struct sched_record, from_node) == 24, "sched_record.from_node");
_Static_assert(__builtin_offsetof(struct sched_record, ptgid) == 28, "sched_record.ptgid");
_Static_assert(__builtin_offsetof(struct sched_record, ptid) == 32, "sched_record.ptid");
_Static_assert(__builtin_offsetof(struct sched_record, code) == 36, "sched_record.code");
_Static_assert(__builtin_offsetof(struct sched_record, access) == 40, "sched_record.access");
_Static_assert(__builtin_offsetof(struct sched_record, pad) == 41, "sched_record.pad");
_Static_assert(sizeof(struct sched_record) == 48, "sched_record");

struct access_record {
	__u64 t_ns;
	__u64 ip;
	__u64 time_ns;
	__u64 regs[32];
	__u64 thread_base;
	__s64 syscall;
	__s32 tgid;
	__s32 tid;
	__s32 cpu;
	__s32 node;
	__s32 code;
	__u8 access;
	__u8 text[16];
	__u8 pad[3];
};
_Static_assert(__builtin_offsetof(struct access_record, t_ns) == 0, "access_record.t_ns");
_Static_assert(__builtin_offsetof(struct access_record, ip) == 8, "access_record.ip");
_Static_assert(__builtin_offsetof(struct access_record, time_ns) == 16, "access_record.time_ns");
_Static_assert(__builtin_offsetof(struct access_record, regs) == 24, "access_record.regs");
_Static_assert(__builtin_offsetof(struct access_record, thread_base) == 280, "access_record.thread_base");
_Static_assert(__builtin_offsetof(struct access_record, syscall) == 288, "access_record.syscall");
_Static_assert(__builtin_offsetof(struct access_record, tgid) == 296, "access_record.tgid");
_Static_assert(__builtin_offsetof(struct access_record, tid) == 300, "access_record.tid");
_Static_assert(__builtin_offsetof(struct access_record, cpu) == 304, "access_record.cpu");
_Static_assert(__builtin_offsetof(struct access_record, node) == 308, "access_record.node");
_Static_assert(__builtin_offsetof(struct access_record, code) == 312, "access_record.code");
_Static_assert(__builtin_offsetof(struct access_record, access) == 316, "access_record.access");
_Static_assert(__builtin_offsetof(struct access_record, text) == 317, "access_record.text");
_Static_assert(__builtin_offsetof(struct access_record, pad) == 333, "access_record.pad");
_Static_assert(sizeof(struct access_record) == 336, "access_record");

struct tensor_record {
	__u64 t_ns;
	__u64 addr;
	__u64 buffer;
	__u64 head[64];
	__s32 tgid;
	__s32 tid;
	__s32 code;
	__u8 pad[4];
};
_Static_assert(__builtin_offsetof(struct tensor_record, t_ns) == 0, "tensor_record.t_ns");
_Static_assert(__builtin_offsetof(struct tensor_record, addr) == 8, "tensor_record.addr");
_Static_assert(__builtin_offsetof(struct tensor_record, buffer) == 16, "tensor_record.buffer");
_Static_assert(__builtin_offsetof(struct tensor_record, head) == 24, "tensor_record.head");
_Static_assert(__builtin_offsetof(struct tensor_record, tgid) == 536, "tensor_record.tgid");
_Static_assert(__builtin_offsetof(struct tensor_record, tid) == 540, "tensor_record.tid");
_Static_assert(__builtin_offsetof(struct tensor_record, code) == 544, "tensor_record.code");
_Static_assert(__builtin_offsetof(struct tensor_record, pad) == 548, "tensor_record.pad");
_Static_assert(sizeof(struct tensor_record) == 552, "tensor_record");
