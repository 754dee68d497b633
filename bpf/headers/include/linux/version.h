/* SPDX-License-Identifier: GPL-2.0 */
/* bcc stamps programs with a version that kernels since 5.0 ignore. */
#pragma once
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))
#define LINUX_VERSION_CODE KERNEL_VERSION(5, 8, 0)
