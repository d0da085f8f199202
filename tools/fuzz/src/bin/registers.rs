// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest's accesses.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: fuzz::registers::Input| fuzz::registers::run(input));
