// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What clients do wrong.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use proptest::prelude::*;
use rustix::io::{write, Errno};

use crate::raw::{
    access, map, message, sized, unmap, words, Raw, DMA_MAP, DMA_UNMAP, GET_INFO, GET_IRQ_INFO,
    GET_REGION_INFO, NO_REPLY, READ_WRITE, REGION_READ, REGION_WRITE, RESET, SET_IRQS, VERSION,
};
use crate::served::{blocking_eventfd, eventually, memory_file, signals, unsealed_file, Served};

const MSIX: u32 = 2;
/// DATA_EVENTFD and ACTION_TRIGGER.
const EVENTFD: u32 = (1 << 2) | (1 << 5);

fn errno(errno: Errno) -> Result<Vec<u8>, u32> {
    Err(errno.raw_os_error() as u32)
}

#[test]
fn the_version_comes_first_and_once() {
    let served = Served::new(false);
    let mut raw = Raw::connect(&served);
    let read = access(0, 7, 4);
    assert_eq!(raw.ask(REGION_READ, &read), errno(Errno::INVAL));
    let refused = raw.ask(VERSION, &[1, 0, 0, 0]);
    assert_eq!(refused, errno(Errno::PROTONOSUPPORT));
    assert_eq!(raw.ask(REGION_READ, &read), errno(Errno::INVAL));
    let version = raw.ask(VERSION, b"\0\0\x01\0{}\0").unwrap();
    assert_eq!(version, b"\0\0\0\0{\"capabilities\":{}}\0");
    assert!(raw.is_understood());
    assert_eq!(raw.ask(VERSION, &[0; 4]), errno(Errno::INVAL));
    assert!(raw.is_understood());
}

#[test]
fn what_was_agreed_on_is_kept() {
    let served = Served::new(false);
    let mut raw = Raw::connect(&served);
    let text = b"\0\0\0\0{\"capabilities\":{\"max_data_xfer_size\":4,\"max_dma_maps\":1}}\0";
    raw.ask(VERSION, text).unwrap();
    assert!(raw.is_understood());
    assert_eq!(raw.ask(REGION_READ, &access(0, 7, 5)), errno(Errno::INVAL));
    let file = memory_file(0x1000);
    let mut mapped = |at| raw.ask_with(DMA_MAP, &map(READ_WRITE, 0, at, 0x1000), &[&file]);
    assert_eq!(mapped(0), Ok(vec![]));
    assert_eq!(mapped(0x1000), errno(Errno::NOSPC));
}

#[test]
fn a_refused_map_has_an_errno() {
    let served = Served::new(false);
    let mut raw = Raw::new(&served);
    let file = memory_file(0x2000);
    for (map, expected) in [
        (map(READ_WRITE, 0, 0, 0x3000), Errno::INVAL),
        (map(READ_WRITE, 0, 0, 1), Errno::INVAL),
        (map(READ_WRITE, 0, 0, 0), Errno::INVAL),
        (map(READ_WRITE | (1 << 4), 0, 0, 0x1000), Errno::INVAL),
    ] {
        assert_eq!(raw.ask_with(DMA_MAP, &map, &[&file]), errno(expected));
    }
    let first = map(READ_WRITE, 0, 0x1000, 0x2000);
    raw.ask_with(DMA_MAP, &first, &[&file]).unwrap();
    let second = map(READ_WRITE, 0, 0x2000, 0x1000);
    let refused = raw.ask_with(DMA_MAP, &second, &[&file]);
    assert_eq!(refused, errno(Errno::EXIST));
    let without = map(READ_WRITE | (1 << 2), 0, 0x8000, 0x1000);
    assert_eq!(raw.ask(DMA_MAP, &without), errno(Errno::INVAL));
    let two = raw.ask_with(
        DMA_MAP,
        &map(READ_WRITE, 0, 0x8000, 0x1000),
        &[&file, &file],
    );
    assert_eq!(two, errno(Errno::INVAL));
    assert!(!served.reaches(0x8000) && served.reaches(0x1000));
    assert!(raw.is_understood());
}

#[test]
fn a_map_is_unmapped_whole_or_not_at_all() {
    let served = Served::new(false);
    let mut raw = Raw::new(&served);
    let file = memory_file(0x2000);
    for address in [0x1_0000, 0x1_2000, 0x8_0000] {
        let map = map(READ_WRITE, 0, address, 0x2000);
        raw.ask_with(DMA_MAP, &map, &[&file]).unwrap();
    }
    for (address, size) in [(0x1_0000, 0x1000), (0x1_1000, 0x3000), (0x1_1000, 0x1000)] {
        let refused = raw.ask(DMA_UNMAP, &unmap(0, address, size));
        assert_eq!(refused, errno(Errno::INVAL));
        assert!(served.reaches(0x1_0000) && served.reaches(0x1_2000));
    }
    let both = unmap(0, 0x1_0000, 0x4000);
    assert_eq!(raw.ask(DMA_UNMAP, &both), Ok(both.clone()));
    assert!(!served.reaches(0x1_0000) && !served.reaches(0x1_2000));
    assert_eq!(raw.ask(DMA_UNMAP, &both), Ok(both), "nothing is there");
    for flags in [1, 4, 8] {
        let refused = raw.ask(DMA_UNMAP, &unmap(flags, 0x8_0000, 0x2000));
        assert_eq!(refused, errno(Errno::INVAL));
    }
    assert!(served.reaches(0x8_0000));
    raw.ask(DMA_UNMAP, &unmap(2, 0, 0)).unwrap();
    assert!(!served.reaches(0x8_0000));
}

#[test]
fn memory_that_is_no_sealed_guest_ram_is_ignored() {
    let served = Served::new(false);
    let mut raw = Raw::new(&served);
    let (file, unsealed) = (memory_file(0x1000), unsealed_file(0x1000));
    let at = |flags| map(flags, 0, 0x1000, 0x1000);
    raw.ask(DMA_MAP, &at(READ_WRITE)).unwrap();
    raw.ask_with(DMA_MAP, &at(1), &[&file]).unwrap();
    raw.ask_with(DMA_MAP, &at(READ_WRITE), &[&unsealed])
        .unwrap();
    assert!(!served.reaches(0x1000));
    raw.ask(DMA_UNMAP, &unmap(0, 0x1000, 0x1000)).unwrap();
    raw.ask_with(DMA_MAP, &at(READ_WRITE), &[&file]).unwrap();
    assert!(served.reaches(0x1000));
}

#[test]
fn a_message_may_come_in_pieces() {
    let served = Served::new(false);
    let mut raw = Raw::new(&served);
    let write = [access(0x14, 0, 1), vec![1]].concat();
    let bytes = message(7, REGION_WRITE, 0, &write);
    for at in 1..bytes.len() {
        raw.send(&bytes[..at], &[]);
        raw.send(&bytes[at..], &[]);
        assert_eq!(raw.reply(), (7, Ok(access(0x14, 0, 1))), "in two at {at}");
    }
    assert_eq!(served.device.report().status, 1);
    // The file comes with any of them.
    let file = memory_file(0x1000);
    let bytes = message(8, DMA_MAP, 0, &map(READ_WRITE, 0, 0, 0x1000));
    raw.send(&bytes[..20], &[]);
    raw.send(&bytes[20..], &[file.as_fd()]);
    assert_eq!(raw.reply(), (8, Ok(vec![])));
    assert!(served.reaches(0));
}

#[test]
fn the_payload_of_a_refused_message_is_no_message() {
    let served = Served::new(false);
    let mut raw = Raw::new(&served);
    let write = [access(0x14, 0, 1), vec![1]].concat();
    let hidden = message(9, REGION_WRITE, 0, &write);
    for (command, expected) in [
        (0, Errno::OPNOTSUPP),
        (6, Errno::OPNOTSUPP),
        (11, Errno::OPNOTSUPP),
        (15, Errno::OPNOTSUPP),
        (0xffff, Errno::OPNOTSUPP),
        (VERSION, Errno::INVAL),
        (GET_INFO, Errno::INVAL),
        (GET_REGION_INFO, Errno::INVAL),
        (DMA_MAP, Errno::INVAL),
        (SET_IRQS, Errno::INVAL),
        (RESET, Errno::INVAL),
    ] {
        let refused = raw.ask(command, &hidden.repeat(300));
        assert_eq!(refused, errno(expected), "{command}");
        assert!(raw.is_understood());
    }
    assert_eq!(served.device.report().status, 0);
}

#[test]
fn a_message_without_a_reply_gets_none() {
    let served = Served::new(false);
    let mut raw = Raw::new(&served);
    let write = [access(0x14, 0, 1), vec![1]].concat();
    raw.command(REGION_WRITE, NO_REPLY, &write, &[]);
    raw.command(REGION_READ, NO_REPLY, &access(0, 7, 4), &[]);
    raw.command(0, NO_REPLY, &[0; 100], &[]);
    assert!(raw.is_understood());
    assert_eq!(served.device.report().status, 1);
}

#[test]
fn a_message_that_can_have_no_end_ends_the_connection() {
    let served = Served::new(false);
    for size in [0, 15] {
        let mut raw = Raw::new(&served);
        raw.send(&sized(1, RESET, size, 0, &[]), &[]);
        assert!(raw.has_ended());
    }
    assert!(Raw::new(&served).is_understood());
}

#[test]
fn sizes_are_checked_before_there_is_memory_for_them() {
    let served = Served::new(false);
    let mut raw = Raw::new(&served);
    for (command, payload) in [
        (REGION_READ, access(0, 0, u32::MAX)),
        (REGION_READ, access(0, 0, 4097)),
        (REGION_READ, access(0, 7, 257)),
        (REGION_READ, access(u64::MAX, 0, 4)),
        (REGION_READ, access(0, 1, 4)),
        (REGION_READ, access(0, 9, 4)),
        (REGION_WRITE, access(0, 0, u32::MAX)),
        (REGION_WRITE, access(0, 0, 1)),
        (SET_IRQS, words(&[20, EVENTFD, MSIX, 0, u32::MAX])),
        (SET_IRQS, words(&[20, EVENTFD, MSIX, u32::MAX, 2])),
        (SET_IRQS, words(&[20, EVENTFD, MSIX, 0, 3])),
        (SET_IRQS, words(&[20, EVENTFD, u32::MAX, 0, 1])),
        (GET_IRQ_INFO, words(&[16, 0, u32::MAX, 0])),
        (GET_IRQ_INFO, words(&[15, 0, MSIX, 0])),
        (GET_REGION_INFO, words(&[32, 0, 9, 0, 0, 0, 0, 0])),
        (GET_REGION_INFO, words(&[31, 0, 0, 0, 0, 0, 0, 0])),
        (GET_INFO, words(&[15, 0, 0, 0])),
    ] {
        let refused = raw.ask(command, &payload);
        assert_eq!(refused, errno(Errno::INVAL), "{command} {payload:?}");
    }
    // As much as there can be.
    let all = raw.ask(REGION_READ, &access(0, 0, 4096)).unwrap();
    assert_eq!(all.len(), 16 + 4096);
    assert!(raw.is_understood());
}

#[test]
fn interrupts_that_cant_be_done_are_refused() {
    let served = Served::new(false);
    let mut raw = Raw::new(&served);
    let file = blocking_eventfd();
    for (words, files, expected) in [
        // More files, or fewer, than interrupts.
        ([20, EVENTFD, MSIX, 0, 1], vec![&file, &file], Errno::INVAL),
        ([20, EVENTFD, MSIX, 0, 2], vec![&file], Errno::INVAL),
        // Vectors can't be masked, and an eventfd that unmasks is nothing that this server reads.
        ([20, 1 | (1 << 4), MSIX, 0, 1], vec![], Errno::OPNOTSUPP),
        ([20, 4 | (1 << 4), MSIX, 0, 1], vec![&file], Errno::INVAL),
        ([20, 2 | (1 << 5), MSIX, 0, 1], vec![], Errno::OPNOTSUPP),
        ([20, 1 | (1 << 5), MSIX, 0, 1], vec![], Errno::OPNOTSUPP),
        ([20, !0, MSIX, 0, 1], vec![], Errno::OPNOTSUPP),
    ] {
        let files: Vec<&dyn AsFd> = files.into_iter().map(|file| file as _).collect();
        let refused = raw.ask_with(SET_IRQS, &self::words(&words), &files);
        assert_eq!(refused, errno(expected), "{words:?}");
    }
    let regular = memory_file(0x1000);
    let refused = raw.ask_with(SET_IRQS, &words(&[20, EVENTFD, MSIX, 0, 1]), &[&regular]);
    assert_eq!(refused, errno(Errno::INVAL));
    assert!(raw.is_understood());
}

#[test]
fn files_that_nobody_expects_are_closed() {
    let served = Served::new(false);
    let mut raw = Raw::new(&served);
    let (kept, sent) = std::os::unix::net::UnixStream::pair().unwrap();
    kept.set_read_timeout(Some(std::time::Duration::from_secs(60)))
        .unwrap();
    for (command, payload) in [
        (RESET, vec![]),
        (REGION_READ, access(0, 7, 4)),
        (0xffff, vec![0; 10_000]),
    ] {
        assert!(raw.ask_with(command, &payload, &[&sent]).is_err());
        assert!(raw.is_understood());
    }
    for number in [9, 60] {
        let files = vec![&sent as &dyn AsFd; number];
        let irqs = words(&[20, EVENTFD, MSIX, 0, 1]);
        assert!(raw.ask_with(SET_IRQS, &irqs, &files).is_err());
        assert!(raw.is_understood());
    }
    drop(sent);
    let mut other_end = kept;
    let ended = std::io::Read::read(&mut other_end, &mut [0]);
    assert_eq!(ended.unwrap(), 0, "nobody has it any more");
}

#[test]
fn an_interrupt_that_is_not_looked_at_blocks_nobody() {
    let served = Served::new(false);
    let file = blocking_eventfd();
    let mut raw = Raw::new(&served);
    let irqs = words(&[20, EVENTFD, MSIX, 1, 1]);
    raw.ask_with(SET_IRQS, &irqs, &[&file]).unwrap();
    let vector = [access(0x10, 0, 2), vec![1, 0]].concat();
    raw.ask(REGION_WRITE, &vector).unwrap();
    write(&file, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    served.interrupt();
    assert!(raw.is_understood());
    assert_eq!(signals(&file), u64::MAX - 1);
    served.interrupt();
    assert_eq!(signals(&file), 1);
}

#[test]
fn half_a_message_can_be_hung_up_on() {
    let served = Served::new(false);
    let whole = message(1, VERSION, 0, &[0; 4]);
    for length in [0, 1, 16, 18] {
        let mut raw = Raw::connect(&served);
        raw.send(&whole[..length], &[]);
        eventually("a client", || served.device.report().connected);
        served.device.act("hang-up").unwrap();
        assert!(raw.has_ended());
        eventually("no client", || !served.device.report().connected);
        // Which is not there: this must not hit the next one.
        served.device.act("hang-up").unwrap();
        assert!(Raw::new(&served).is_understood());
        eventually("no client", || !served.device.report().connected);
    }
}

#[test]
fn a_client_that_reads_no_replies_can_be_hung_up_on() {
    let served = Served::new(false);
    let raw = Raw::new(&served);
    raw.stream.set_nonblocking(true).unwrap();
    let read = message(1, REGION_READ, 0, &access(0, 0, 4096));
    // Until the server waits for the client, and takes no more.
    let mut stream = &raw.stream;
    eventually("the server waits", || {
        std::io::Write::write(&mut stream, &read).is_err()
    });
    served.device.act("hang-up").unwrap();
    eventually("no client", || !served.device.report().connected);
    assert!(Raw::new(&served).is_understood());
}

#[test]
fn a_client_takes_everything_with_it() {
    let served = Served::new(false);
    let mut raw = Raw::new(&served);
    let (file, eventfd) = (memory_file(0x1000), blocking_eventfd());
    raw.ask_with(DMA_MAP, &map(READ_WRITE, 0, 0, 0x1000), &[&file])
        .unwrap();
    raw.ask_with(SET_IRQS, &words(&[20, EVENTFD, MSIX, 1, 1]), &[&eventfd])
        .unwrap();
    drop(raw);
    eventually("no client", || !served.device.report().connected);
    assert!(!served.reaches(0));
    let raised = served.device.report().counters.interrupts;
    served.interrupt();
    assert_eq!(served.device.report().counters.interrupts, raised);
}

/// Something that a client sends, which the server can tell the end of.
fn anything() -> impl Strategy<Value = (Vec<u8>, usize)> {
    let command = prop_oneof![8 => 0u16..20, 1 => any::<u16>()];
    let payload = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..40),
        1 => prop::collection::vec(any::<u8>(), 0..9000),
    ];
    // Half of them without a reply, or of no known type.
    let flags = prop_oneof![3 => Just(0), 1 => Just(NO_REPLY), 1 => any::<u32>()];
    (any::<u16>(), command, flags, payload, 0usize..10).prop_map(
        |(id, command, flags, payload, files)| (message(id, command, flags, &payload), files),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_comes_before_a_message_that_makes_sense_is_understood(
        messages in prop::collection::vec(anything(), 1..20),
        pieces in prop::collection::vec(1usize..300, 1..50),
    ) {
        let served = Served::new(false);
        let mut raw = Raw::new(&served);
        let file: OwnedFd = File::open("/dev/null").unwrap().into();
        let mut pieces = pieces.iter().cycle();
        for (bytes, files) in messages {
            let mut rest = &bytes[..];
            let mut files = vec![file.as_fd(); files];
            while !rest.is_empty() {
                let (piece, next) = rest.split_at(rest.len().min(*pieces.next().unwrap()));
                raw.send(piece, &files);
                files.clear();
                rest = next;
            }
        }
        let last = raw.command(REGION_READ, 0, &access(0, 7, 4), &[]);
        // The replies to the others come before. Their ids may be the same.
        loop {
            let (id, result) = raw.reply();
            let expected = [access(0, 7, 4), vec![0xf4, 0x1a, 0x49, 0x10]].concat();
            if id == last && result == Ok(expected) {
                break;
            }
        }
    }
}
