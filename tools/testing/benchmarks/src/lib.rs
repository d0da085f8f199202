// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the benchmarks and the demonstrations draw, and how they complain.

pub mod exchanges;
pub mod picture;

/// Says on standard error why `program` has failed, and why that was.
pub fn complain(program: &str, error: &dyn std::error::Error) {
    eprint!("{program}: {error}");
    let mut source = error.source();
    while let Some(error) = source {
        eprint!(": {error}");
        source = error.source();
    }
    eprintln!();
}
