// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The program, as another process goes on with its devices, or does not.

#[cfg(test)]
mod driver;
#[cfg(test)]
mod servers;
#[cfg(test)]
mod snapshots;
#[cfg(test)]
mod successors;
