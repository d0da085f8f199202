// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Lines at the control socket.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::control::run(input));
