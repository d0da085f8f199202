// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/*
 * An EFI program that copies 512 KiB of the disk that it was loaded from, by the firmware's driver,
 * in pieces of 4 KiB: more requests than a virtqueue has places. It says how it has ended on the
 * debug port, and ends QEMU. See copied_whole in ends.d/firmware.sh.
 *
 * What it declares of the firmware's tables is in the UEFI specification under these names. Members
 * that are of no interest are there for their size.
 */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define DEBUG_PORT 0x402 /* isa-debugcon */
#define EXIT_PORT 0xf4 /* isa-debug-exit: QEMU ends with status 2 * value + 1 */
#define SECTOR 512
#define FROM 8192 /* in sectors */
#define TO 16384
#define PIECE 8
#define PIECES 128

struct guid {
	u32 data1;
	u16 data2;
	u16 data3;
	u8 data4[8];
};

struct boot_services {
	u8 header[24];
	void *before[16];
	u64 (*handle_protocol)(void *handle, struct guid *protocol, void **interface);
};

struct system_table {
	u8 header[24];
	void *vendor;
	u64 revision;
	void *console[6];
	void *runtime_services;
	struct boot_services *boot_services;
};

struct loaded_image {
	u64 revision;
	void *parent;
	struct system_table *table;
	void *device;
};

struct block_io_media {
	u32 id;
	u8 removable;
	u8 present;
	u8 partition;
	u8 read_only;
	u8 write_caching;
	u32 block_size;
};

struct block_io {
	u64 revision;
	struct block_io_media *media;
	void *reset;
	u64 (*read)(struct block_io *io, u32 media, u64 block, u64 bytes, void *buffer);
	u64 (*write)(struct block_io *io, u32 media, u64 block, u64 bytes, void *buffer);
	u64 (*flush)(struct block_io *io);
};

static struct guid loaded_image_protocol = {
	0x5b1b31a1, 0x9562, 0x11d2, { 0x8e, 0x3f, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b }
};

static struct guid block_io_protocol = {
	0x964e5b21, 0x6459, 0x11d2, { 0x8e, 0x39, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b }
};

static _Alignas(4096) u8 piece[PIECE * SECTOR];

static void out(u16 port, u8 value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "d"(port));
}

static const char *copy(void *image, struct system_table *table)
{
	struct boot_services *services = table->boot_services;
	struct loaded_image *self;
	struct block_io *disk;
	u32 at, media;

	if (services->handle_protocol(image, &loaded_image_protocol, (void **)&self))
		return "\ndisk: not known\n";
	if (services->handle_protocol(self->device, &block_io_protocol, (void **)&disk))
		return "\ndisk: is none\n";
	if (disk->media->block_size != SECTOR)
		return "\ndisk: has other sectors\n";
	media = disk->media->id;
	for (at = 0; at < PIECE * PIECES; at += PIECE) {
		if (disk->read(disk, media, FROM + at, sizeof(piece), piece))
			return "\ndisk: can't be read\n";
		if (disk->write(disk, media, TO + at, sizeof(piece), piece))
			return "\ndisk: can't be written\n";
	}
	if (disk->flush(disk))
		return "\ndisk: can't be flushed\n";
	return 0;
}

u64 efi_main(void *image, struct system_table *table)
{
	const char *trouble = copy(image, table);
	const char *text = trouble ? trouble : "\ndisk: copied\n";

	while (*text)
		out(DEBUG_PORT, *text++);
	out(EXIT_PORT, trouble ? 0x11 : 0x10);
	return 0;
}
