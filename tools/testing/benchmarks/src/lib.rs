// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the benchmarks and the demonstrations draw.

pub mod exchanges;
pub mod picture;
