// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::time::{Duration, Instant};

use smoltcp::wire::{Ipv4Packet, TcpControl, TcpPacket};

use super::super::tests::{connect, packet, read, segment};
use super::super::{Echo, BUFFER, CHUNK, CONNECTIONS};

/// The echo, as another process goes on with it.
pub(in super::super) fn handed_over(echo: &Echo) -> Echo {
    serde_json::from_str(&serde_json::to_string(echo).unwrap()).unwrap()
}

/// What the echo sends as soon as it may.
fn said_at_once(echo: &mut Echo, now: Instant) -> Vec<Vec<u8>> {
    let due = echo.due().unwrap();
    assert!(due <= now + Duration::from_millis(10));
    echo.pass(due)
}

/// The port of the guest, and the data.
fn contents(packet: &[u8]) -> (u16, &[u8]) {
    let ip = Ipv4Packet::new_checked(packet).unwrap();
    let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
    (tcp.dst_port(), tcp.payload())
}

/// What the guest gets, from the sequence number `from` on, and whether that is all.
fn stream(packets: &[Vec<u8>], from: i32) -> (Vec<u8>, bool) {
    let (mut bytes, mut ends) = (Vec::new(), false);
    for packet in packets {
        let (control, seq, _) = read(packet);
        let (_, data) = contents(packet);
        let at = seq.wrapping_sub(from);
        assert!(data.is_empty() || at == bytes.len() as i32, "{at}");
        bytes.extend(data);
        ends |= control == TcpControl::Fin;
    }
    (bytes, ends)
}

#[test]
fn what_is_not_acknowledged_is_sent_again() {
    let (mut echo, now) = (Echo::default(), Instant::now());
    let first = connect(&mut echo, 1000, now);
    let mut data = segment(1000, TcpControl::Psh, 101, Some(first));
    data.payload = b"acknowledged, not";
    let answers = echo.answer(&packet(&data), now);
    assert_eq!(stream(&answers, first).0, data.payload);
    let next = first.wrapping_add(14);
    let acknowledge = |ack| packet(&segment(1000, TcpControl::None, 118, Some(ack)));
    assert!(echo.answer(&acknowledge(next), now).is_empty());
    for _ in 0..3 {
        echo = handed_over(&echo);
        assert_eq!((echo.accepted(), echo.echoed()), (1, 17));
    }
    let again = said_at_once(&mut echo, now);
    assert_eq!(stream(&again, next), (b"not".to_vec(), false));
    let end = first.wrapping_add(17);
    assert!(echo.answer(&acknowledge(end), now).is_empty());
    assert_eq!(echo.due(), None, "nothing to do");
    let mut more = segment(1000, TcpControl::Psh, 118, Some(end));
    more.payload = b"more";
    let answers = echo.answer(&packet(&more), now);
    assert_eq!(stream(&answers, end), (b"more".to_vec(), false));
    assert_eq!(read(&answers[0]).2, Some(122));
    assert_eq!((echo.accepted(), echo.echoed()), (1, 21));
}

#[test]
fn what_was_acknowledged_meanwhile_is_not_sent_again() {
    let (mut echo, now) = (Echo::default(), Instant::now());
    let first = connect(&mut echo, 1000, now);
    let mut data = segment(1000, TcpControl::Psh, 101, Some(first));
    data.payload = b"data";
    echo.answer(&packet(&data), now);
    let mut echo = handed_over(&echo);
    said_at_once(&mut echo, now);
    let end = first.wrapping_add(4);
    let acknowledge = packet(&segment(1000, TcpControl::None, 105, Some(end)));
    assert!(echo.answer(&acknowledge, now).is_empty());
    assert_eq!(handed_over(&echo).due(), None);
}

#[test]
fn a_connection_may_have_had_its_answer_before() {
    let (mut echo, now) = (Echo::default(), Instant::now());
    let begin = packet(&segment(1000, TcpControl::Syn, 100, None));
    let answers = echo.answer(&begin, now);
    let (_, seq, _) = read(&answers[0]);
    let mut echo = handed_over(&echo);
    assert!(echo.answer(&begin, now).is_empty(), "it has its answer");
    let due = echo.due().unwrap();
    let again = echo.pass(due);
    assert_eq!(read(&again[0]), (TcpControl::Syn, seq, Some(101)));
    let first = seq.wrapping_add(1);
    let mut data = segment(1000, TcpControl::Psh, 101, Some(first));
    data.payload = b"data";
    let answers = echo.answer(&packet(&data), now);
    assert_eq!(stream(&answers, first).0, b"data");
    assert_eq!((echo.accepted(), echo.echoed()), (1, 4));
}

/// A guest that has no room sends as much as there is room for, and closes its end if it `closes`.
/// Returns what it sends, and the sequence number that it expects.
fn fill(echo: &mut Echo, closes: bool, now: Instant) -> (Vec<u8>, i32) {
    let first = connect(echo, 1000, now);
    let data: Vec<u8> = (0..2 * BUFFER).map(|at| (at * 31 / 7) as u8).collect();
    let mut seq = 101;
    for chunk in data.chunks(CHUNK) {
        let mut full = segment(1000, TcpControl::Psh, seq, Some(first));
        full.window_len = 0;
        full.payload = chunk;
        for answer in echo.answer(&packet(&full), now) {
            assert!(contents(&answer).1.is_empty());
        }
        seq += chunk.len() as i32;
    }
    if closes {
        let mut end = segment(1000, TcpControl::Fin, seq, Some(first));
        end.window_len = 0;
        echo.answer(&packet(&end), now);
    }
    (data, first)
}

#[test]
fn both_buffers_are_handed_over_and_so_is_the_end() {
    for closes in [false, true] {
        let (mut echo, now) = (Echo::default(), Instant::now());
        let (data, first) = fill(&mut echo, closes, now);
        let seq = 101 + data.len() as i32 + i32::from(closes);
        let mut echo = handed_over(&echo);
        assert_eq!(echo.echoed(), BUFFER as u64);
        let tried = stream(&said_at_once(&mut echo, now), first).0;
        assert_eq!(tried, data[..1], "it looks whether there is room");
        let (mut got, mut ends) = (Vec::new(), false);
        for _ in 0..data.len() {
            let ack = first.wrapping_add(got.len() as i32);
            let acknowledge = segment(1000, TcpControl::None, seq, Some(ack));
            let skipped = usize::from(got.is_empty());
            let answers = echo.answer(&packet(&acknowledge), now);
            let (more, end) = stream(&answers, ack.wrapping_add(skipped as i32));
            got.extend_from_slice(&data[..skipped]);
            got.extend(more);
            ends |= end;
            if got.len() == data.len() && ends == closes {
                break;
            }
        }
        assert!(got == data, "{} of {} bytes", got.len(), data.len());
        assert_eq!(ends, closes);
        assert_eq!(echo.echoed(), data.len() as u64);
    }
}

#[test]
fn an_end_that_is_not_acknowledged_is_sent_again() {
    let (mut echo, now) = (Echo::default(), Instant::now());
    let first = connect(&mut echo, 1000, now);
    let mut data = segment(1000, TcpControl::Fin, 101, Some(first));
    data.payload = b"data";
    let answers = echo.answer(&packet(&data), now);
    assert_eq!(stream(&answers, first), (b"data".to_vec(), false));
    let mut echo = handed_over(&echo);
    let again = said_at_once(&mut echo, now);
    assert_eq!(stream(&again, first), (b"data".to_vec(), false));
    let acknowledge = |bytes| {
        let ack = Some(first.wrapping_add(bytes));
        packet(&segment(1000, TcpControl::None, 106, ack))
    };
    // Of the data, of the end, and once more.
    let answers = echo.answer(&acknowledge(4), now);
    assert_eq!(stream(&answers, first.wrapping_add(4)), (Vec::new(), true));
    assert_eq!(read(&answers[0]).2, Some(106));
    let mut echo = handed_over(&echo);
    let again = said_at_once(&mut echo, now);
    assert_eq!(read(&again[0]).1, first.wrapping_add(4));
    assert_eq!(stream(&again, first.wrapping_add(4)), (Vec::new(), true));
    assert!(echo.answer(&acknowledge(5), now).is_empty());
    assert_eq!(echo.due(), None);
    let answers = echo.answer(&acknowledge(5), now);
    assert_eq!(read(&answers[0]).0, TcpControl::Rst, "there is none");
}

#[test]
fn which_connection_was_silent_for_longest_is_known() {
    let (mut echo, now) = (Echo::default(), Instant::now());
    let ports = 1000..1000 + CONNECTIONS as u16;
    let firsts: Vec<i32> = ports.map(|from| connect(&mut echo, from, now)).collect();
    let acknowledge = packet(&segment(1000, TcpControl::None, 101, Some(firsts[0])));
    assert!(echo.answer(&acknowledge, now).is_empty());
    let mut echo = handed_over(&echo);
    assert_eq!(echo.due(), None, "nothing to do");
    let answers = echo.answer(&packet(&segment(5000, TcpControl::Syn, 100, None)), now);
    let [reset, begin] = &answers[..] else {
        panic!("{answers:?}");
    };
    assert_eq!(read(reset), (TcpControl::Rst, firsts[1], Some(101)));
    assert_eq!(contents(reset).0, 1001);
    assert_eq!(read(begin).0, TcpControl::Syn);
    // One that is begun anew has sequence numbers of its own.
    let begin = packet(&segment(1000, TcpControl::Syn, 100, None));
    let answers = echo.answer(&begin, now);
    assert_eq!(read(&answers[0]).0, TcpControl::Rst);
    let first = read(&answers[1]).1.wrapping_add(1);
    let mut data = segment(1000, TcpControl::Psh, 101, Some(first));
    data.payload = b"anew";
    assert_eq!(stream(&echo.answer(&packet(&data), now), first).0, b"anew");
}

#[test]
fn sequence_numbers_come_round() {
    let (mut echo, now) = (Echo::default(), Instant::now());
    let begin = packet(&segment(1000, TcpControl::Syn, i32::MAX - 1, None));
    let first = read(&echo.answer(&begin, now)[0]).1.wrapping_add(1);
    let mut got = 0i32;
    for _ in 0..3 {
        let (seq, ack) = (i32::MAX.wrapping_add(got), first.wrapping_add(got));
        let mut data = segment(1000, TcpControl::Psh, seq, Some(ack));
        data.payload = b"data";
        let answers = echo.answer(&packet(&data), now);
        assert_eq!(stream(&answers, ack).0, b"data");
        echo = handed_over(&echo);
        assert_eq!(stream(&said_at_once(&mut echo, now), ack).0, b"data");
        got += 4;
    }
    assert_eq!((echo.accepted(), echo.echoed()), (1, 12));
}

#[test]
fn what_makes_no_sense_is_refused_or_left_out() {
    let (mut echo, now) = (Echo::default(), Instant::now());
    let first = connect(&mut echo, 1000, now);
    let mut data = segment(1000, TcpControl::Psh, 101, Some(first));
    data.payload = b"data";
    echo.answer(&packet(&data), now);
    let saved = serde_json::to_value(&echo).unwrap();
    let bytes = "/connections/0/stream/bytes";
    assert_eq!(saved.pointer(bytes).unwrap(), "64617461");
    for wrong in ["6", "6g", &"00".repeat(2 * BUFFER + 1)] {
        let mut saved = saved.clone();
        *saved.pointer_mut(bytes).unwrap() = wrong.into();
        assert!(serde_json::from_value::<Echo>(saved).is_err(), "{wrong:.9}");
    }
    // More connections than there may be, all of the same ends, and some of no host.
    let mut many = saved;
    let connections = many["connections"].as_array_mut().unwrap();
    let one = connections[0].clone();
    connections.resize(2 * CONNECTIONS, one);
    for (connection, guest) in (1..).zip(["224.0.0.1:0", "0.0.0.0:1000", "255.255.255.255:1000"]) {
        connections[connection]["stream"]["guest"] = guest.into();
    }
    let mut echo: Echo = serde_json::from_value(many).unwrap();
    assert_eq!(stream(&said_at_once(&mut echo, now), first).0, b"data");
}

#[test]
fn a_time_of_the_future_does_not_make_it_stand_still() {
    let (mut echo, now) = (Echo::default(), Instant::now());
    let first = connect(&mut echo, 1000, now);
    let mut data = segment(1000, TcpControl::Psh, 101, Some(first));
    data.payload = b"data";
    echo.answer(&packet(&data), now);
    let mut saved = serde_json::to_value(&echo).unwrap();
    saved["time"] = i64::MAX.into();
    let mut echo: Echo = serde_json::from_value(saved).unwrap();
    said_at_once(&mut echo, now);
    // It is not acknowledged.
    let again = echo.pass(now + Duration::from_secs(60));
    assert_eq!(stream(&again, first).0, b"data");
}
