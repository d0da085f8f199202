// SPDX-License-Identifier: GPL-2.0-only
/*
 * Keeps the data of a module when that has been unloaded: there it has counted what was reached, in
 * its exit function, too. A file for each time, in debugfs, with the address that the data had.
 */

#include <linux/debugfs.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

static char *of;
module_param(of, charp, 0);
MODULE_PARM_DESC(of, "The name of the module");

static struct dentry *folder;

/* Called when the exit function has returned, and before the memory is freed. */
static int keep(struct notifier_block *block, unsigned long state, void *data)
{
	static unsigned int times;
	struct module *module = data;
	struct module_memory *memory = &module->mem[MOD_DATA];
	struct debugfs_blob_wrapper *kept;
	char name[40];

	if (state != MODULE_STATE_GOING || strcmp(module->name, of))
		return NOTIFY_DONE;
	kept = kzalloc_obj(*kept);
	if (!kept)
		return NOTIFY_DONE;
	kept->data = vmalloc(memory->size);
	if (!kept->data) {
		kfree(kept);
		return NOTIFY_DONE;
	}
	kept->size = memory->size;
	memcpy(kept->data, memory->base, memory->size);
	snprintf(name, sizeof(name), "%u-%#lx", times++, (unsigned long)memory->base);
	debugfs_create_blob(name, 0400, folder, kept);
	return NOTIFY_DONE;
}

static struct notifier_block block = { .notifier_call = keep };

/* It stays: there is no exit function. */
static int __init keep_data_init(void)
{
	if (!of)
		return -EINVAL;
	folder = debugfs_create_dir(KBUILD_MODNAME, NULL);
	return register_module_notifier(&block);
}
module_init(keep_data_init);

MODULE_DESCRIPTION("Keeps the data of a module that is unloaded");
MODULE_LICENSE("GPL");
