/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What bindgen makes the bindings from: the kernel's virtio headers, and the functions in shims.c,
 * which stand for what the kernel has only as inline functions and macros.
 */

#include <linux/netdevice.h>
#include <linux/reboot.h>
#include <linux/rtnetlink.h>
#include <linux/suspend.h>
#include <linux/types.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/wait.h>
#include <uapi/linux/virtio_blk.h>
#include <uapi/linux/virtio_pci.h>
#include <uapi/linux/virtio_scsi.h>

#include "../uapi/virtio_device_stop.h"

struct blk_mq_tag_set;
struct gendisk;
struct request;
struct Scsi_Host;

struct virtio_device *virtio_device_stop_to_virtio(struct device *dev);
bool virtio_device_stop_is_registered(struct virtio_device *vdev);
int virtio_device_stop_ask_core(void);
bool virtio_device_stop_kernel_negotiates(struct virtio_device *vdev, unsigned int feature);
u64 virtio_device_stop_offered(struct virtio_device *vdev);
bool virtio_device_stop_is_or_has(struct virtio_device *vdev, struct device *wanted);
struct module *virtio_device_stop_driver_module(struct device *dev);
void virtio_device_stop_publish(struct virtio_device *vdev, const struct virtio_config_ops *ops);
struct gendisk *virtio_device_stop_find_disk(struct virtio_device *vdev);
bool virtio_device_stop_disk_polls(struct gendisk *disk);
bool virtio_device_stop_disk_is_zoned(struct gendisk *disk);
void virtio_device_stop_init_attribute(struct attribute *attribute);
void virtio_device_stop_put_disk(struct gendisk *disk);
struct Scsi_Host *virtio_device_stop_find_scsi_host(struct virtio_device *vdev);
struct blk_mq_tag_set *virtio_device_stop_scsi_host_tags(struct Scsi_Host *host);
bool virtio_device_stop_scsi_host_recovers(struct Scsi_Host *host);
void virtio_device_stop_block_scsi_host(struct Scsi_Host *host, bool block);
struct blk_mq_tag_set *virtio_device_stop_disk_tags(struct gendisk *disk);
bool virtio_device_stop_is_completed(struct request *request);
void virtio_device_stop_put_scsi_host(struct Scsi_Host *host);
struct net_device *virtio_device_stop_find_netdev(struct virtio_device *vdev);
void virtio_device_stop_break_tx(struct net_device *netdev, unsigned int index,
				 struct virtqueue *vq);
void virtio_device_stop_stop_full(struct net_device *netdev, unsigned int index,
				  struct virtqueue *vq);
void virtio_device_stop_hold_tx(struct net_device *netdev);
void virtio_device_stop_release_tx(struct net_device *netdev);
bool virtio_device_stop_has_pools(struct net_device *netdev);
bool virtio_device_stop_trylock_netdev(struct net_device *netdev);
void virtio_device_stop_unlock_netdev(struct net_device *netdev);
bool virtio_device_stop_disable_polls(struct net_device *netdev);
void virtio_device_stop_enable_polls(struct net_device *netdev);
void virtio_device_stop_put_netdev(struct net_device *netdev);
void virtio_device_stop_note_vlans(struct net_device *netdev, unsigned long *vids);
void virtio_device_stop_remove_vlans(struct net_device *netdev, const unsigned long *before);
void virtio_device_stop_attach_netdev(struct net_device *netdev);
void virtio_device_stop_set_rx_mode(struct net_device *netdev);
void virtio_device_stop_disable_bh(void);
void virtio_device_stop_enable_bh(void);
void virtio_device_stop_lock(struct device *dev);
bool virtio_device_stop_trylock(struct device *dev);
void virtio_device_stop_unlock(struct device *dev);
unsigned int virtio_device_stop_noio_save(void);
void virtio_device_stop_noio_restore(unsigned int flags);
void virtio_device_stop_wake(struct wait_queue_head *queue);
bool virtio_device_stop_wait(struct wait_queue_head *queue, const u32 *count, u32 was, u64 ns,
			     bool killable);
bool virtio_device_stop_is_present(struct device *parent);
unsigned long virtio_device_stop_rcu_state(void);
void virtio_device_stop_wait_for_rcu(unsigned long state);
void virtio_device_stop_comm(char comm[16]);
void virtio_device_stop_not_leak(const void *memory);
void virtio_device_stop_synchronize(void);
int virtio_device_stop_register_pm(struct notifier_block *block);
void virtio_device_stop_unregister_pm(struct notifier_block *block);
