/* SPDX-License-Identifier: GPL-2.0 */
/* Empty on purpose: bcc includes it, and our programs need nothing from it. */
#pragma once
