/* SPDX-License-Identifier: GPL-2.0 */
/* The integer types that bcc's own headers use, in place of the kernel's linux/types.h. */
#pragma once

typedef signed char __s8;
typedef unsigned char __u8;
typedef short __s16;
typedef unsigned short __u16;
typedef int __s32;
typedef unsigned int __u32;
typedef long long __s64;
typedef unsigned long long __u64;
typedef __s8 s8;
typedef __u8 u8;
typedef __s16 s16;
typedef __u16 u16;
typedef __s32 s32;
typedef __u32 u32;
typedef __s64 s64;
typedef __u64 u64;
typedef __u16 __be16, __le16, __sum16;
typedef __u32 __be32, __le32, __wsum;
typedef __u64 __be64, __le64;
typedef unsigned long uintptr_t, size_t;
typedef int pid_t;
typedef _Bool bool;

#define __always_inline inline __attribute__((always_inline))
#define true 1
#define false 0
#define __aligned_u64 __u64 __attribute__((aligned(8)))
#define PAGE_SIZE 4096
#define CONFIG_BPF_SYSCALL 1
