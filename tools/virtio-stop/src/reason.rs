// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The words of the file `reason`, for people.

/// What a word means, and what to do. A word of a newer module is returned as it is.
pub fn explain(reason: &str) -> &str {
    match reason {
        "none" => "nothing to say",
        "no_driver" => "no driver is bound to it: bind one",
        "not_offered" => "the device offers neither VIRTIO_F_SUSPEND nor VIRTIO_F_DEVICE_STOP",
        "bit39_ambiguous" => {
            "its feature bit 39 may mean something else: if it is VIRTIO_F_DEVICE_STOP, write 1 to \
             its device_stop/accept_bit39, then unbind and bind its driver"
        }
        "disabled" => "a parameter of virtio_device_stop forbids it",
        "not_version_1" => "it is a legacy device",
        "admin_vq" => "it has an administration virtqueue",
        "transport" => "its transport, or this kernel, is in the way",
        "type_refused" => {
            "devices of its type are not stopped, or only if 1 was written to its device_stop/force"
        }
        "no_quiesce" => "what is to be held above it was not found",
        "bound_before" => {
            "its driver was bound before virtio_device_stop was loaded: unbind and bind it, or \
             write 1 to its device_stop/renegotiate if it is a disk"
        }
        "reset" => "the device was reset",
        "gone" => "the device is gone",
        "needs_reset" => "it needs a reset: unbind and bind its driver",
        "stop_timeout" => "a stop was not acknowledged in time",
        "stop_unanswered" => "a stop was never acknowledged: its I/O may hang until it answers",
        "resume_unanswered" => "it does not resume: its I/O waits until it does",
        "stop_dropped" => "the device has ended its last stop by itself",
        "lease_expired" => {
            "its last stop has ended with its lease: take a longer one, or renew it in time"
        }
        other => other,
    }
}
