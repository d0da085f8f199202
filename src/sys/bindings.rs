// SPDX-License-Identifier: GPL-2.0-only

//! What bindgen makes of `bindings_helper.h`. Not to be used outside of [`super`].

#![allow(
    clippy::all,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    unused_imports
)]
#![allow(clippy::undocumented_unsafe_blocks)]

include!(env!("VIRTIO_DEVICE_STOP_BINDINGS"));
