// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The server as a process.

#[cfg(test)]
mod log;
