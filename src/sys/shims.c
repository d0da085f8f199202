// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the kernel has only as inline functions and macros, for Rust. No logic of this module's own.
 */

#include <linux/blk-mq.h>
#include <linux/blkdev.h>
#include <linux/export.h>
#include <linux/hrtimer.h>
#include <linux/if_vlan.h>
#include <linux/kmemleak.h>
#include <linux/netdevice.h>
#include <linux/pci.h>
#include <linux/rcupdate.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/sysfs.h>
#include <linux/virtio_ring.h>
#include <linux/wait.h>
#include <net/netdev_lock.h>
#include <net/netdev_rx_queue.h>
#include <scsi/scsi_host.h>
#include <uapi/linux/virtio_net.h>

#include "../include/virtio_device_stop.h"
#include "bindings_helper.h"

struct virtio_device *virtio_device_stop_to_virtio(struct device *dev)
{
	return dev_to_virtio(dev);
}

bool virtio_device_stop_is_registered(struct virtio_device *vdev)
{
	return device_is_registered(&vdev->dev);
}

/* The features 0 to 63 that the device offers. */
u64 virtio_device_stop_offered(struct virtio_device *vdev)
{
	u64 features[VIRTIO_FEATURES_U64S];

	virtio_get_features(vdev, features);
	return features[0];
}

/* Which of the transport's features the virtio core negotiates by itself: it clears the others. */
static u64 core_negotiates __ro_after_init;

int virtio_device_stop_ask_core(void)
{
	struct virtio_device *all = kzalloc(sizeof(*all), GFP_KERNEL);
	unsigned int i;

	if (!all)
		return -ENOMEM;
	for (i = VIRTIO_TRANSPORT_F_START; i < VIRTIO_TRANSPORT_F_END; i++)
		__virtio_set_bit(all, i);
	vring_transport_features(all);
	core_negotiates = all->features;
	kfree(all);
	return 0;
}

/* Whether the core or the driver that is bound, if any, negotiates that feature by itself. */
bool virtio_device_stop_kernel_negotiates(struct virtio_device *vdev, unsigned int feature)
{
	struct virtio_driver *drv = vdev->dev.driver ? drv_to_virtio(vdev->dev.driver) : NULL;
	unsigned int i;

	if (core_negotiates & BIT_ULL(feature))
		return true;
	for (i = 0; drv && i < drv->feature_table_size; i++) {
		if (drv->feature_table[i] == feature)
			return true;
	}
	return false;
}

static int is_or_has(struct device *dev, void *wanted)
{
	return dev == wanted || device_for_each_child(dev, wanted, is_or_has);
}

/*
 * Whether that is the device, or one that is below it. Only compared: what is not found may have
 * gone, and whoever asks can't always know.
 */
bool virtio_device_stop_is_or_has(struct virtio_device *vdev, struct device *wanted)
{
	return is_or_has(&vdev->dev, wanted);
}

/* The module that has the driver of a device; none if that is built in. */
struct module *virtio_device_stop_driver_module(struct device *dev)
{
	struct device_driver *driver = READ_ONCE(dev->driver);

	return driver ? driver->owner : NULL;
}

/* Points the device to the operations. */
void virtio_device_stop_publish(struct virtio_device *vdev, const struct virtio_config_ops *ops)
{
	/* Whoever sees the pointer sees what was written to the operations. */
	smp_store_release(&vdev->config, ops);
}

static int is_disk(struct device *dev, const void *unused)
{
	return dev->type && !strcmp(dev->type->name, "disk") &&
	       dev->class && !strcmp(dev->class->name, "block");
}

/* The disk of a block device, with a reference to it. */
struct gendisk *virtio_device_stop_find_disk(struct virtio_device *vdev)
{
	struct device *dev = device_find_child(&vdev->dev, NULL, is_disk);

	return dev ? dev_to_disk(dev) : NULL;
}

/* Whether its driver looks for the end of requests itself, instead of being interrupted. */
bool virtio_device_stop_disk_polls(struct gendisk *disk)
{
	const struct blk_mq_tag_set *set = disk->queue->tag_set;

	return set && set->nr_maps > HCTX_TYPE_POLL && set->map[HCTX_TYPE_POLL].nr_queues;
}

bool virtio_device_stop_disk_is_zoned(struct gendisk *disk)
{
	return bdev_is_zoned(disk->part0);
}

void virtio_device_stop_init_attribute(struct attribute *attribute)
{
	sysfs_attr_init(attribute);
}

void virtio_device_stop_put_disk(struct gendisk *disk)
{
	put_device(disk_to_dev(disk));
}

static int is_scsi_host(struct device *dev, const void *unused)
{
	return dev->type && !strcmp(dev->type->name, "scsi_host");
}

/* The SCSI host of a SCSI host device, with a reference to it. */
struct Scsi_Host *virtio_device_stop_find_scsi_host(struct virtio_device *vdev)
{
	struct device *dev = device_find_child(&vdev->dev, NULL, is_scsi_host);

	return dev ? container_of(dev, struct Scsi_Host, shost_gendev) : NULL;
}

struct blk_mq_tag_set *virtio_device_stop_scsi_host_tags(struct Scsi_Host *host)
{
	return &host->tag_set;
}

/*
 * Has the host's units give the driver no more requests, those that are found meanwhile included;
 * or again. As scsi_block_requests(), which would need the module scsi_mod to be there. Units that
 * have requests look again every 3 ms.
 */
void virtio_device_stop_block_scsi_host(struct Scsi_Host *host, bool block)
{
	unsigned long flags;

	spin_lock_irqsave(host->host_lock, flags);
	host->host_self_blocked = block;
	spin_unlock_irqrestore(host->host_lock, flags);
}

/* The tags of the disk's requests. */
struct blk_mq_tag_set *virtio_device_stop_disk_tags(struct gendisk *disk)
{
	return disk->queue->tag_set;
}

bool virtio_device_stop_is_completed(struct request *request)
{
	return blk_mq_request_completed(request);
}

/*
 * Whether its error handler is at work, or about to be. It gives the driver commands of its own,
 * whether the host is blocked or not.
 */
bool virtio_device_stop_scsi_host_recovers(struct Scsi_Host *host)
{
	unsigned long flags;
	bool recovers;

	spin_lock_irqsave(host->host_lock, flags);
	recovers = scsi_host_in_recovery(host) || host->host_failed || host->host_eh_scheduled;
	spin_unlock_irqrestore(host->host_lock, flags);
	return recovers;
}

/* As scsi_host_put(), which would need the module scsi_mod to be there. */
void virtio_device_stop_put_scsi_host(struct Scsi_Host *host)
{
	put_device(&host->shost_gendev);
}

static int is_netdev(struct device *dev, const void *priv)
{
	return dev->class && !strcmp(dev->class->name, "net") &&
	       netdev_priv(to_net_dev(dev)) == priv;
}

/* The network interface of a network device, with a reference to it. */
struct net_device *virtio_device_stop_find_netdev(struct virtio_device *vdev)
{
	struct device *dev = device_find_child(&vdev->dev, vdev->priv, is_netdev);

	return dev ? to_net_dev(dev) : NULL;
}

/*
 * Has the stack pass nothing on to that queue of the interface, and its virtqueue take nothing: no
 * frame is on its way between the two. The bit is the one that the stack sets while too many bytes
 * are with the device. Nobody clears it but who completes some, which the driver can't with a
 * virtqueue that is broken; it wakes the queue whatever it was stopped for.
 */
void virtio_device_stop_break_tx(struct net_device *netdev, unsigned int index,
				 struct virtqueue *vq)
{
	struct netdev_queue *txq;

	if (index >= netdev->num_tx_queues) {
		__virtqueue_break(vq);
		return;
	}
	txq = netdev_get_tx_queue(netdev, index);
	__netif_tx_lock_bh(txq);
	set_bit(__QUEUE_STATE_STACK_XOFF, &txq->state);
	__virtqueue_break(vq);
	__netif_tx_unlock_bh(txq);
}

/*
 * If there is no room for another frame in the virtqueue for that queue of the interface, the
 * driver is not given one before it has found some: it is interrupted when there is, or called at
 * once if there is some by now. It had stopped the queue itself, but to attach the interface has
 * woken it.
 */
void virtio_device_stop_stop_full(struct net_device *netdev, unsigned int index,
				  struct virtqueue *vq)
{
	struct netdev_queue *txq;
	bool call = false;

	if (index >= netdev->num_tx_queues)
		return;
	txq = netdev_get_tx_queue(netdev, index);
	local_bh_disable();
	__netif_tx_lock(txq, smp_processor_id());
	if (vq->num_free < MAX_SKB_FRAGS + 2) {
		netif_tx_stop_queue(txq);
		call = !virtqueue_enable_cb_delayed(vq);
	}
	__netif_tx_unlock(txq);
	if (call && vq->callback)
		vq->callback(vq);
	local_bh_enable();
}

/* Has the stack pass nothing on to the interface, in the same way. */
void virtio_device_stop_hold_tx(struct net_device *netdev)
{
	struct netdev_queue *txq;
	unsigned int i;

	for (i = 0; i < netdev->num_tx_queues; i++) {
		txq = netdev_get_tx_queue(netdev, i);
		__netif_tx_lock_bh(txq);
		set_bit(__QUEUE_STATE_STACK_XOFF, &txq->state);
		__netif_tx_unlock_bh(txq);
	}
}

/* The stack passes on again what it has: it was held as in virtio_device_stop_break_tx(). */
void virtio_device_stop_release_tx(struct net_device *netdev)
{
	struct netdev_queue *txq;
	unsigned int i;

	for (i = 0; i < netdev->num_tx_queues; i++) {
		txq = netdev_get_tx_queue(netdev, i);
		clear_bit(__QUEUE_STATE_STACK_XOFF, &txq->state);
		/* Those that the driver has woken meanwhile were not scheduled. */
		netif_schedule_queue(txq);
	}
}

/* Whether user space has given the driver buffers of its own (AF_XDP). The RTNL is held. */
bool virtio_device_stop_has_pools(struct net_device *netdev)
{
	bool found = false;

#ifdef CONFIG_XDP_SOCKETS
	unsigned int i;

	for (i = 0; i < netdev->num_rx_queues; i++)
		found |= !!netdev->_rx[i].pool;
	for (i = 0; i < netdev->num_tx_queues; i++)
		found |= !!netdev->_tx[i].pool;
#endif
	return found;
}

/* The interface's own lock: who changes how polls are done waits with it for a disabled one. */
bool virtio_device_stop_trylock_netdev(struct net_device *netdev)
{
	return mutex_trylock(&netdev->lock);
}

void virtio_device_stop_unlock_netdev(struct net_device *netdev)
{
	netdev_unlock(netdev);
}

/*
 * No poll function of the interface runs until they are enabled again. False if that makes no
 * difference, since a frame has one buffer (no VIRTIO_NET_F_MRG_RXBUF), or if it is down: then
 * they are disabled, and nobody may do it twice. The driver enables those with a weight when it
 * brings the interface up. The RTNL and the interface's own lock are held.
 */
bool virtio_device_stop_disable_polls(struct net_device *netdev)
{
	struct napi_struct *napi;

	if (!netif_running(netdev) ||
	    !virtio_has_feature(dev_to_virtio(netdev->dev.parent), VIRTIO_NET_F_MRG_RXBUF))
		return false;
	list_for_each_entry(napi, &netdev->napi_list, dev_list) {
		if (napi->weight)
			napi_disable_locked(napi);
	}
	return true;
}

void virtio_device_stop_enable_polls(struct net_device *netdev)
{
	struct napi_struct *napi;

	list_for_each_entry(napi, &netdev->napi_list, dev_list) {
		if (napi->weight)
			napi_enable_locked(napi);
	}
}

void virtio_device_stop_put_netdev(struct net_device *netdev)
{
	put_device(&netdev->dev);
}

static int note_vlan(struct net_device *vlan, int vid, void *vids)
{
	__set_bit(vid, vids);
	return 0;
}

/* The VLANs whose frames the interface is to receive, in VLAN_N_VID bits. The RTNL is held. */
void virtio_device_stop_note_vlans(struct net_device *netdev, unsigned long *vids)
{
	bitmap_zero(vids, VLAN_N_VID);
	vlan_for_each(netdev, note_vlan, vids);
}

/* Has the driver tell the device of those that were removed since then, if it can. */
void virtio_device_stop_remove_vlans(struct net_device *netdev, const unsigned long *before)
{
	const struct net_device_ops *ops = netdev->netdev_ops;
	DECLARE_BITMAP(now, VLAN_N_VID);
	unsigned int vid;

	if (!(netdev->features & NETIF_F_HW_VLAN_CTAG_FILTER) || !ops->ndo_vlan_rx_kill_vid)
		return;
	virtio_device_stop_note_vlans(netdev, now);
	for_each_set_bit(vid, before, VLAN_N_VID) {
		if (!test_bit(vid, now))
			ops->ndo_vlan_rx_kill_vid(netdev, htons(ETH_P_8021Q), vid);
	}
}

/* As netif_device_attach(), which leaves the queues of an interface stopped that was shut down. */
void virtio_device_stop_attach_netdev(struct net_device *netdev)
{
	netif_device_attach(netdev);
	if (!netif_running(netdev))
		netif_tx_start_all_queues(netdev);
}

/* Has the driver tell the device what it is to receive, if it can. */
void virtio_device_stop_set_rx_mode(struct net_device *netdev)
{
	const struct net_device_ops *ops = netdev->netdev_ops;

	netif_addr_lock_bh(netdev);
	if ((netdev->flags & IFF_UP) && ops->ndo_set_rx_mode)
		ops->ndo_set_rx_mode(netdev);
	netif_addr_unlock_bh(netdev);
}

void virtio_device_stop_disable_bh(void)
{
	local_bh_disable();
}

void virtio_device_stop_enable_bh(void)
{
	local_bh_enable();
}

void virtio_device_stop_lock(struct device *dev)
{
	device_lock(dev);
}

bool virtio_device_stop_trylock(struct device *dev)
{
	return device_trylock(dev);
}

void virtio_device_stop_unlock(struct device *dev)
{
	device_unlock(dev);
}

unsigned int virtio_device_stop_noio_save(void)
{
	return memalloc_noio_save();
}

void virtio_device_stop_noio_restore(unsigned int flags)
{
	memalloc_noio_restore(flags);
}

void virtio_device_stop_wake(struct wait_queue_head *queue)
{
	wake_up_all(queue);
}

/*
 * Sleeps for about that time. Returns early if the count is not what it was, or, if killable, and
 * then true, if the task is being killed.
 */
bool virtio_device_stop_wait(struct wait_queue_head *queue, const u32 *count, u32 was, u64 ns,
			     bool killable)
{
	ktime_t time = ns_to_ktime(ns);
	bool killed = false;
	DEFINE_WAIT(wait);

	prepare_to_wait(queue, &wait, killable ? TASK_KILLABLE : TASK_UNINTERRUPTIBLE);
	if (killable)
		killed = fatal_signal_pending(current);
	if (!killed && READ_ONCE(*count) == was)
		schedule_hrtimeout_range(&time, ns / 8, HRTIMER_MODE_REL);
	finish_wait(queue, &wait);
	return killable && fatal_signal_pending(current);
}

/* Whether the bus knows the device still, whatever that shows by itself. */
bool virtio_device_stop_is_present(struct device *parent)
{
	return !dev_is_pci(parent) || pci_device_is_present(to_pci_dev(parent));
}

unsigned long virtio_device_stop_rcu_state(void)
{
	return get_state_synchronize_rcu();
}

/* Inline where there is one processor. */
void virtio_device_stop_wait_for_rcu(unsigned long state)
{
	cond_synchronize_rcu_expedited(state);
}

/* The name of the current task. */
void virtio_device_stop_comm(char comm[16])
{
	BUILD_BUG_ON(TASK_COMM_LEN != 16);
	strscpy_pad(comm, current->comm, TASK_COMM_LEN);
}

void virtio_device_stop_not_leak(const void *memory)
{
	kmemleak_not_leak(memory);
}

/* Waits until every task has voluntarily slept or run in user space. */
void virtio_device_stop_synchronize(void)
{
	synchronize_rcu_tasks();
}

/* Without CONFIG_PM_SLEEP there is nothing to be told of. */
int virtio_device_stop_register_pm(struct notifier_block *block)
{
	return register_pm_notifier(block);
}

void virtio_device_stop_unregister_pm(struct notifier_block *block)
{
	unregister_pm_notifier(block);
}

/* The interface for other modules, which is in Rust. */
EXPORT_SYMBOL_GPL(virtio_device_stop_get);
EXPORT_SYMBOL_GPL(virtio_device_stop_get_by_index);
EXPORT_SYMBOL_GPL(virtio_device_stop_add);
EXPORT_SYMBOL_GPL(virtio_device_stop_add_by_index);
EXPORT_SYMBOL_GPL(virtio_device_stop_stop);
EXPORT_SYMBOL_GPL(virtio_device_stop_look);
EXPORT_SYMBOL_GPL(virtio_device_stop_resume);
EXPORT_SYMBOL_GPL(virtio_device_stop_put);
