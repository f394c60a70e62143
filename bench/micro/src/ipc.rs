//! Pipes and sockets: a byte there and back, and many bytes one way.

use crate::sys::{eventfd, helper, pipe, socket_pair};
use crate::timing::{bandwidth, batches, each};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Instant;

const CHUNK: usize = 64 << 10;
/// Any free port of the loopback device.
const LOOPBACK: &str = "127.0.0.1:0";

pub(crate) fn pipe_round_trip() -> f64 {
    let (there_end, there) = pipe();
    let (back_end, back) = pipe();
    helper(|| echo(&mut File::from(there_end), &mut File::from(back)));
    ping(File::from(there), File::from(back_end))
}

/// Two processes that add to each other's eventfd(2).
pub(crate) fn eventfd_round_trip() -> f64 {
    let [there, back] = [0, 0].map(|count| File::from(eventfd(count)));
    let one = 1u64.to_ne_bytes();
    let (mut to, mut from) = (&there, &back);
    helper(|| {
        let (mut to, mut from) = (&back, &there);
        loop {
            from.read_exact(&mut [0; 8]).expect("a count there");
            to.write_all(&one).expect("a count back");
        }
    });
    each(|| {
        to.write_all(&one).expect("a count there");
        from.read_exact(&mut [0; 8]).expect("a count back");
    })
}

pub(crate) fn unix_round_trip() -> f64 {
    let (ours, theirs) = socket_pair();
    helper(|| {
        let (mut reader, mut writer) = both(theirs);
        echo(&mut reader, &mut writer);
    });
    let (reader, writer) = both(ours);
    ping(writer, reader)
}

/// TCP over the loopback device, without waiting for more to send.
pub(crate) fn tcp_round_trip() -> f64 {
    let (ours, theirs) = tcp_pair();
    helper(|| {
        let (mut reader, mut writer) = both(theirs.into());
        echo(&mut reader, &mut writer);
    });
    let (reader, writer) = both(ours.into());
    ping(writer, reader)
}

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(LOOPBACK).expect("a listening socket");
    let ours = TcpStream::connect(listener.local_addr().expect("its address")).expect("a connection");
    let (theirs, _) = listener.accept().expect("the other end");
    for socket in [&ours, &theirs] {
        socket.set_nodelay(true).expect("TCP_NODELAY");
    }
    (ours, theirs)
}

/// UDP over the loopback device.
pub(crate) fn udp_round_trip() -> f64 {
    let [ours, theirs] = [(); 2].map(|()| UdpSocket::bind(LOOPBACK).expect("a socket"));
    ours.connect(theirs.local_addr().expect("its address")).expect("a peer");
    theirs.connect(ours.local_addr().expect("our address")).expect("a peer");
    helper(|| {
        let mut byte = [0];
        while theirs.recv(&mut byte).and_then(|_| theirs.send(&byte)).is_ok() {}
    });
    let mut byte = [0];
    each(|| {
        ours.send(b"x").expect("a byte there");
        ours.recv(&mut byte).expect("a byte back");
    })
}

/// A TCP connection over the loopback device, made and closed from one side; the other takes it.
pub(crate) fn tcp_connect() -> f64 {
    let listener = TcpListener::bind(LOOPBACK).expect("a listening socket");
    let address = listener.local_addr().expect("its address");
    helper(|| while listener.accept().is_ok() {});
    each(|| drop(TcpStream::connect(address).expect("a connection")))
}

pub(crate) fn tcp_bandwidth() -> f64 {
    let (ours, theirs) = tcp_pair();
    stream(theirs.into(), ours.into())
}

fn both(socket: OwnedFd) -> (File, File) {
    let reader = File::from(socket);
    let writer = reader.try_clone().expect("a second descriptor");
    (reader, writer)
}

fn echo(reader: &mut File, writer: &mut File) {
    let mut byte = [0];
    while reader.read_exact(&mut byte).and_then(|()| writer.write_all(&byte)).is_ok() {}
}

fn ping(mut there: File, mut back: File) -> f64 {
    let mut byte = [0];
    each(|| {
        there.write_all(b"x").expect("a byte there");
        back.read_exact(&mut byte).expect("a byte back");
    })
}

pub(crate) fn pipe_bandwidth() -> f64 {
    let (reader, writer) = pipe();
    stream(reader, writer)
}

pub(crate) fn unix_bandwidth() -> f64 {
    let (reader, writer) = socket_pair();
    stream(reader, writer)
}

/// Sends chunks of 64 KiB to a helper, which says when it has got a batch whole.
fn stream(reader: OwnedFd, writer: OwnedFd) -> f64 {
    let (orders_end, orders) = pipe();
    let (done_end, done) = pipe();
    helper(|| receive(File::from(reader), File::from(orders_end), File::from(done)));
    let (mut writer, mut orders, mut done) = (File::from(writer), File::from(orders), File::from(done_end));
    let chunk = vec![1; CHUNK];
    let time = batches(|count| {
        let start = Instant::now();
        orders.write_all(&count.to_ne_bytes()).expect("an order");
        for _ in 0..count {
            writer.write_all(&chunk).expect("a chunk");
        }
        done.read_exact(&mut [0]).expect("an answer");
        start.elapsed()
    });
    bandwidth(CHUNK, time)
}

fn receive(mut reader: File, mut orders: File, mut done: File) {
    let mut buffer = vec![0; CHUNK];
    let mut order = [0; 8];
    while orders.read_exact(&mut order).is_ok() {
        let mut left = u64::from_ne_bytes(order) as usize * CHUNK;
        while left > 0 {
            left -= reader.read(&mut buffer).expect("a part");
        }
        done.write_all(b"x").expect("an answer");
    }
}
