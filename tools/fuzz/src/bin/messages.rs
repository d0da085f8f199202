// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A client's messages.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: fuzz::messages::Input| fuzz::messages::run(input));
