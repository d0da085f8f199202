/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * A boot sector that copies 512 KiB of the disk that it was booted from, by the BIOS, in pieces of
 * 4 KiB: more requests than a virtqueue has places. It says how it has ended on the debug port, and
 * ends QEMU. See copied_whole in ends.d/firmware.sh.
 */

	.set	DEBUG_PORT, 0x402	/* isa-debugcon */
	.set	EXIT_PORT, 0xf4		/* isa-debug-exit: QEMU ends with status 2 * value + 1 */
	.set	FROM, 8192		/* in sectors */
	.set	TO, 16384
	.set	PIECE, 8
	.set	PIECES, 128

	.code16
	.globl	_start
_start:
	xor	%ax, %ax
	mov	%ax, %ds
	mov	%ax, %ss
	mov	$_start, %sp
	cld
	mov	$PIECES, %cx

next_piece:
	movl	from, %eax
	mov	$0x42, %bh		/* extended read; the BIOS has left the drive in dl */
	call	transfer
	mov	$read_failed, %si
	jc	fail
	movl	to, %eax
	mov	$0x43, %bh		/* extended write */
	call	transfer
	mov	$write_failed, %si
	jc	fail
	addl	$PIECE, from
	addl	$PIECE, to
	loop	next_piece

	mov	$copied, %si
	call	say
	mov	$0x10, %al
	out	%al, $EXIT_PORT
	hlt

fail:
	call	say
	mov	$0x11, %al
	out	%al, $EXIT_PORT
	hlt

/* Has the BIOS carry out bh with a piece of the disk from sector eax. */
transfer:
	movl	%eax, sector
	movw	$PIECE, sectors		/* the BIOS leaves there how many it has done */
	push	%cx
	push	%dx
	mov	%bh, %ah
	mov	$0, %al
	mov	$packet, %si
	int	$0x13
	pop	%dx
	pop	%cx
	ret

/* Writes the text at si, which ends with a zero, to the debug port. */
say:
	mov	$DEBUG_PORT, %dx
1:	lodsb
	test	%al, %al
	jz	2f
	out	%al, %dx
	jmp	1b
2:	ret

from:	.long	FROM
to:	.long	TO

/* What the BIOS is told: see "disk address packet" in its interface (EDD). */
packet:
	.byte	16, 0
sectors:
	.word	0
	.word	0x8000, 0		/* the buffer: offset, segment */
sector:
	.quad	0

copied:
	.asciz	"\ndisk: copied\n"
read_failed:
	.asciz	"\ndisk: can't be read\n"
write_failed:
	.asciz	"\ndisk: can't be written\n"

	.org	510
	.word	0xaa55
