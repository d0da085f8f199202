// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Requests to disks.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: fuzz::requests::Input| fuzz::requests::run(input));
