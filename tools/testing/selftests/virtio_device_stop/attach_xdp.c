// SPDX-License-Identifier: GPL-2.0-only
/*
 * usage: attach_xdp INTERFACE native|generic
 *
 * Attaches an XDP program that passes everything to an interface, and detaches it again.
 */

#include <err.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int bpf(int command, union bpf_attr *attr)
{
	return syscall(SYS_bpf, command, attr, sizeof(*attr));
}

int main(int argc, char **argv)
{
	struct bpf_insn pass[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = XDP_PASS },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	union bpf_attr attr;
	int program, link, mode;

	if (argc != 3)
		errx(2, "usage: attach_xdp INTERFACE native|generic");
	memset(&attr, 0, sizeof(attr));
	attr.prog_type = BPF_PROG_TYPE_XDP;
	attr.insns = (uintptr_t)pass;
	attr.insn_cnt = sizeof(pass) / sizeof(*pass);
	attr.license = (uintptr_t)"GPL";
	program = bpf(BPF_PROG_LOAD, &attr);
	if (program < 0)
		err(1, "the program can't be loaded");
	memset(&attr, 0, sizeof(attr));
	attr.link_create.prog_fd = program;
	attr.link_create.target_ifindex = if_nametoindex(argv[1]);
	attr.link_create.attach_type = BPF_XDP;
	mode = strcmp(argv[2], "native") ? XDP_FLAGS_SKB_MODE : XDP_FLAGS_DRV_MODE;
	attr.link_create.flags = mode;
	link = bpf(BPF_LINK_CREATE, &attr);
	if (link < 0)
		err(1, "%s", argv[1]);
	return 0;
}
