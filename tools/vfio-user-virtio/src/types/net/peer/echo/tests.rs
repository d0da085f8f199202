// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::time::{Duration, Instant};

use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    IpProtocol, Ipv4Address, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};

use super::saved::tests::handed_over;
use super::{is_for_echo, Echo, CONNECTIONS, MOST_SENT, PORT};

mod loss;

const GUEST: Ipv4Address = Ipv4Address::new(10, 0, 0, 2);
const HERE: Ipv4Address = Ipv4Address::new(10, 0, 0, 1);

pub(super) fn packet(tcp: &TcpRepr<'_>) -> Vec<u8> {
    let checksums = ChecksumCapabilities::default();
    let ip = Ipv4Repr {
        src_addr: GUEST,
        dst_addr: HERE,
        next_header: IpProtocol::Tcp,
        payload_len: tcp.buffer_len(),
        hop_limit: 64,
    };
    let mut bytes = vec![0; ip.buffer_len() + tcp.buffer_len()];
    let mut packet = Ipv4Packet::new_unchecked(&mut bytes);
    ip.emit(&mut packet, &checksums);
    tcp.emit(
        &mut TcpPacket::new_unchecked(packet.payload_mut()),
        &GUEST.into(),
        &HERE.into(),
        &checksums,
    );
    bytes
}

pub(super) fn segment(
    from: u16,
    control: TcpControl,
    seq: i32,
    ack: Option<i32>,
) -> TcpRepr<'static> {
    TcpRepr {
        src_port: from,
        dst_port: PORT,
        control,
        seq_number: TcpSeqNumber(seq),
        ack_number: ack.map(TcpSeqNumber),
        window_len: 60_000,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    }
}

/// The flags of a packet, its number, and what it acknowledges.
pub(super) fn read(packet: &[u8]) -> (TcpControl, i32, Option<i32>) {
    let ip = Ipv4Packet::new_checked(packet).unwrap();
    assert_eq!((ip.src_addr(), ip.dst_addr()), (HERE, GUEST));
    let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
    let tcp = TcpRepr::parse(
        &tcp,
        &HERE.into(),
        &GUEST.into(),
        &ChecksumCapabilities::default(),
    )
    .unwrap();
    (
        tcp.control,
        tcp.seq_number.0,
        tcp.ack_number.map(|ack| ack.0),
    )
}

pub(super) fn connect(echo: &mut Echo, from: u16, now: Instant) -> i32 {
    let answers = echo.answer(&packet(&segment(from, TcpControl::Syn, 100, None)), now);
    let (control, seq, ack) = read(&answers[0]);
    assert_eq!(
        (answers.len(), control, ack),
        (1, TcpControl::Syn, Some(101))
    );
    let end = seq.wrapping_add(1);
    let answers = echo.answer(
        &packet(&segment(from, TcpControl::None, 101, Some(end))),
        now,
    );
    assert!(answers.is_empty());
    end
}

#[test]
fn one_connection_more_ends_the_one_that_was_silent_for_longest() {
    let (mut echo, now) = (Echo::default(), Instant::now());
    let first = connect(&mut echo, 1000, now);
    for from in 1001..1000 + CONNECTIONS as u16 {
        connect(&mut echo, from, now);
    }
    let mut data = segment(1000, TcpControl::Psh, 101, Some(first));
    data.payload = b"still here";
    assert!(!echo.answer(&packet(&data), now).is_empty());
    assert_eq!(echo.echoed(), 10);
    let answers = echo.answer(&packet(&segment(5000, TcpControl::Syn, 100, None)), now);
    let controls: Vec<_> = answers.iter().map(|answer| read(answer).0).collect();
    assert_eq!(controls, [TcpControl::Rst, TcpControl::Syn]);
    assert_eq!(echo.accepted(), CONNECTIONS as u64);
    data.seq_number += 10;
    assert!(!echo.answer(&packet(&data), now).is_empty());
    assert_eq!(echo.echoed(), 20, "the first one is still there");
}

#[test]
fn a_connection_can_be_begun_anew_and_is_not_begun_twice() {
    let (mut echo, now) = (Echo::default(), Instant::now());
    let begin = packet(&segment(1000, TcpControl::Syn, 100, None));
    assert_eq!(echo.answer(&begin, now).len(), 1);
    assert!(echo.answer(&begin, now).is_empty());
    let (mut echo, now) = (Echo::default(), Instant::now());
    connect(&mut echo, 1000, now);
    let answers = echo.answer(&begin, now);
    let controls: Vec<_> = answers.iter().map(|answer| read(answer).0).collect();
    assert_eq!(controls, [TcpControl::Rst, TcpControl::Syn]);
}

#[test]
fn what_is_not_acknowledged_is_sent_again_until_patience_ends() {
    let (mut echo, start) = (Echo::default(), Instant::now());
    assert_eq!(echo.due(), None);
    let end = connect(&mut echo, 1000, start);
    assert_eq!(echo.due(), None, "nothing to do by itself");
    let mut data = segment(1000, TcpControl::Psh, 101, Some(end));
    data.payload = b"data";
    assert!(!echo.answer(&packet(&data), start).is_empty());
    let (mut now, mut again) = (start, 0);
    while let Some(due) = echo.due() {
        assert!(due > now, "time passes between two looks");
        assert!(echo.pass(now).is_empty());
        now = due;
        again += echo.pass(now).len();
    }
    assert!(again > 5);
    let passed = now - start;
    assert!((900..1000).contains(&passed.as_secs()), "{passed:?}");
}

#[test]
fn a_connection_that_is_never_made_ends_too() {
    let (mut echo, start) = (Echo::default(), Instant::now());
    echo.answer(&packet(&segment(1000, TcpControl::Syn, 100, None)), start);
    let (mut now, mut again) = (start, 0);
    while let Some(due) = echo.due() {
        now = due;
        again += echo.pass(now).len();
    }
    assert!(again > 5);
    assert!((now - start).as_secs() < 1000);
    assert_eq!(echo.accepted(), 0);
}

#[test]
fn only_tcp_to_its_port_and_of_a_host_to_a_host_is_for_the_echo() {
    let good = packet(&segment(1000, TcpControl::Syn, 100, None));
    assert!(is_for_echo(&good));
    for (at, byte) in [(9, 17), (12, 224), (16, 239), (23, 8), (0, 0x65)] {
        let mut bad = good.clone();
        bad[at] = byte;
        assert!(!is_for_echo(&bad), "{at}");
    }
    for length in 0..good.len() {
        assert!(!is_for_echo(&good[..length]));
    }
}

#[test]
fn an_end_in_the_past_is_none() {
    let (mut echo, now) = (Echo::default(), Instant::now());
    let first = connect(&mut echo, 1000, now);
    let mut data = segment(1000, TcpControl::Psh, 101, Some(first));
    data.payload = b"data";
    echo.answer(&packet(&data), now);
    echo.answer(
        &packet(&segment(1000, TcpControl::Fin, 104, Some(first))),
        now,
    );
    let all = Some(first.wrapping_add(4));
    echo.answer(&packet(&segment(1000, TcpControl::None, 105, all)), now);
    assert_eq!(echo.due(), None, "all is acknowledged, and nothing closed");
}

#[test]
fn what_is_said_after_the_end_is_not_heard() {
    let (mut echo, now) = (Echo::default(), Instant::now());
    let first = connect(&mut echo, 1000, now);
    let mut data = segment(1000, TcpControl::Fin, 101, Some(first));
    data.payload = b"data";
    echo.answer(&packet(&data), now);
    let all = first.wrapping_add(4);
    let acknowledge = packet(&segment(1000, TcpControl::None, 106, Some(all)));
    let end = (TcpControl::Fin, all, Some(106));
    let answers = echo.answer(&acknowledge, now);
    assert_eq!(read(answers.last().unwrap()), end);
    let mut more = segment(1000, TcpControl::Psh, 106, Some(all));
    more.payload = b"more";
    assert!(echo.answer(&packet(&more), now).is_empty());
    assert!(echo.answer(&acknowledge, now).is_empty());
    let due = echo.due().expect("the end was not acknowledged");
    let again = echo.pass(due);
    assert_eq!(read(again.last().unwrap()), end);
    assert_eq!(echo.echoed(), 4);
}

#[test]
fn a_reset_after_the_end_is_a_reset() {
    let (mut echo, now) = (Echo::default(), Instant::now());
    let first = connect(&mut echo, 1000, now);
    let mut data = segment(1000, TcpControl::Fin, 101, Some(first));
    data.payload = b"data";
    echo.answer(&packet(&data), now);
    let reset = segment(1000, TcpControl::Rst, 106, Some(first.wrapping_add(4)));
    assert!(echo.answer(&packet(&reset), now).is_empty());
    assert_eq!(echo.due(), None, "nothing is left of it");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Segments close to what would be right, in any state, with any options.
    #[test]
    fn no_segment_breaks_the_echo(
        acts in prop::collection::vec(
            (
                (0u16..20, 0u8..5, any::<bool>(), any::<bool>()),
                (prop_oneof![6 => -3i32..4, 1 => any::<i32>()], prop_oneof![6 => -3i32..4, 1 => any::<i32>()]),
                (any::<u16>(), prop::option::of(any::<u8>()), prop::option::of(any::<u16>())),
                prop_oneof![6 => 0usize..20, 1 => 0usize..1400],
                0u64..2000,
prop::bool::weighted(0.03),
            ),
            1..300,
        ),
    ) {
        let (mut echo, mut now) = (Echo::default(), Instant::now());
        // What is next in either direction, by port.
        let mut next = std::collections::BTreeMap::<u16, (i32, i32)>::new();
        for ((from, control, acks, sack), (seq, ack), (window, scale, mss), length, millis, hands_over) in acts {
            let from = 1000 + from;
            let (ours, theirs) = *next.entry(from).or_insert((0, 0));
            let data = vec![7; length];
            let mut tcp = segment(from, TcpControl::None, ours.wrapping_add(seq), None);
            tcp.control = match control {
                0 => TcpControl::Syn,
                1 => TcpControl::Fin,
                2 => TcpControl::Rst,
                3 => TcpControl::Psh,
                _ => TcpControl::None,
            };
            tcp.ack_number = acks.then_some(TcpSeqNumber(theirs.wrapping_add(ack)));
            tcp.window_len = window;
            tcp.window_scale = scale;
            tcp.max_seg_size = mss;
            tcp.sack_permitted = sack;
            tcp.payload = &data;
            let mut answers = echo.answer(&packet(&tcp), now);
            prop_assert!(answers.len() <= 2 * MOST_SENT + 2);
            if hands_over {
                echo = handed_over(&echo);
            }
            now += Duration::from_millis(millis);
            answers.extend(echo.pass(now));
            for answer in answers {
                let ip = Ipv4Packet::new_checked(&answer[..]).unwrap();
                let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
                let end = tcp.seq_number() + tcp.segment_len();
                next.insert(tcp.dst_port(), (tcp.ack_number().0, end.0));
            }
        }
    }
}
