//! The virtio console device with multiple ports (virtio 1.2, section 5.3): byte streams to the host.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use dev::Port;
use hal::dma::DmaBuffer;
use hal::sync::{Once, SpinLock};

use super::Transport;
use super::queue::{Buffer, Queue};
use super::transport::buffers;

/// VIRTIO_CONSOLE_F_MULTIPORT.
const MULTIPORT: u64 = 1 << 1;
const DEVICE_READY: u16 = 0;
const PORT_ADD: u16 = 1;
const PORT_READY: u16 = 3;
const PORT_OPEN: u16 = 6;

const CONTROL_RX: u16 = 2;
const CONTROL_TX: u16 = 3;
const CONTROL_SLOTS: u16 = 32;
const CONTROL_SIZE: usize = 256;
const RX_SLOTS: u16 = 16;
const RX_SIZE: usize = 4096;
const TX_SLOTS: u16 = 8;
const TX_SIZE: usize = 16384;
/// The most ports that a device may have here.
const MAX_PORTS: u32 = 8;

/// A queue with one buffer of equal size for each request in it.
struct Slots {
    queue: Queue,
    memory: DmaBuffer,
    size: usize,
    /// Buffers not in the queue.
    free: Vec<u16>,
    /// Which buffer each request uses.
    buffer_of: Vec<u16>,
}

impl Slots {
    fn new(device: &Transport, index: u16, count: u16, size: usize) -> Option<Slots> {
        let queue = device.queue(index, count)?;
        let count = queue.size();
        let memory = buffers(count, size)?;
        Some(Slots { queue, memory, size, free: (0..count).rev().collect(), buffer_of: (0..count).collect() })
    }

    fn offset(&self, buffer: u16) -> usize {
        usize::from(buffer) * self.size
    }

    /// Puts a free buffer into the queue, for the device to write or with `data` for it to read; false if there is none.
    fn add(&mut self, data: Option<&[u8]>) -> bool {
        let Some(buffer) = self.free.pop() else {
            return false;
        };
        let at = self.offset(buffer);
        if let Some(data) = data {
            self.memory.write(at, data);
        }
        let len = data.map_or(self.size, <[u8]>::len) as u32;
        let physical = self.memory.physical() + at as u64;
        match self.queue.add(&[Buffer { physical, len, device_writes: data.is_none() }]) {
            Some(request) => {
                self.buffer_of[usize::from(request)] = buffer;
                true
            }
            None => {
                self.free.push(buffer);
                false
            }
        }
    }

    /// A finished request: its buffer and how much of it is filled. The buffer is the caller's to free.
    fn take(&mut self) -> Option<(u16, usize)> {
        let (request, len) = self.queue.take_used()?;
        Some((self.buffer_of[usize::from(request)], (len as usize).min(self.size)))
    }

    /// Frees the buffers of all finished requests.
    fn reclaim(&mut self) {
        while let Some((buffer, _)) = self.take() {
            self.free.push(buffer);
        }
    }
}

/// A received buffer: its number, how much of it was read, and its length.
type Received = (u16, usize, usize);

struct ReceiveSide {
    slots: Slots,
    ready: VecDeque<Received>,
}

impl ReceiveSide {
    fn collect(&mut self) {
        while let Some((buffer, len)) = self.slots.take() {
            if len == 0 {
                self.slots.free.push(buffer);
                self.slots.add(None);
            } else {
                self.ready.push_back((buffer, 0, len));
            }
        }
    }
}

/// A port of a console device.
struct ConsolePort {
    number: u32,
    device: Arc<Console>,
    receive: SpinLock<ReceiveSide>,
    send: SpinLock<Slots>,
    /// The device has added it.
    present: AtomicBool,
    connected: AtomicBool,
    listener: Once<Box<dyn Fn() + Send + Sync>>,
}

struct Console {
    transport: Transport,
    control: SpinLock<(Slots, Slots)>,
    ports: SpinLock<Vec<Arc<ConsolePort>>>,
}

/// The queue numbers of a port, receiving and sending.
fn queues_of(port: u32) -> (u16, u16) {
    if port == 0 { (0, 1) } else { ((2 + 2 * port) as u16, (3 + 2 * port) as u16) }
}

/// Sets a device up and gives its ports, ordered by number. Ports are the ones that the device has at boot.
pub fn start(transport: Transport) -> Vec<Arc<dyn Port>> {
    let Some(features) = transport.begin(MULTIPORT) else {
        log::warn!("virtio-console: the device refused the features");
        return Vec::new();
    };
    if features & MULTIPORT == 0 {
        log::warn!("virtio-console: a device without multiple ports is not used");
        return Vec::new();
    }
    let max_ports = transport.config32(4).min(MAX_PORTS);
    let receive = Slots::new(&transport, CONTROL_RX, CONTROL_SLOTS, CONTROL_SIZE);
    let send = Slots::new(&transport, CONTROL_TX, CONTROL_SLOTS, CONTROL_SIZE);
    let (Some(receive), Some(send)) = (receive, send) else {
        return Vec::new();
    };
    let console =
        Arc::new(Console { transport, control: SpinLock::new((receive, send)), ports: SpinLock::new(Vec::new()) });
    for number in 0..max_ports {
        console.add_port(number);
    }
    console.transport.start();
    console.fill_receive_queues();
    let handler = console.clone();
    if !console.transport.set_handler(Box::new(move || handler.on_interrupt())) {
        log::warn!("virtio-console: no interrupt line");
    }
    console.send_control(0, DEVICE_READY, 1);
    console.wait_for_ports();
    let mut ports: Vec<Arc<dyn Port>> = Vec::new();
    ports.extend(console.ports.lock_irq().iter().map(|p| p.clone() as Arc<dyn Port>));
    ports
}

impl Console {
    /// Prepares a port's queues. They must exist before the device starts, so ports that it never adds have them too.
    fn add_port(self: &Arc<Console>, number: u32) {
        let (rx, tx) = queues_of(number);
        let receive = Slots::new(&self.transport, rx, RX_SLOTS, RX_SIZE);
        let send = Slots::new(&self.transport, tx, TX_SLOTS, TX_SIZE);
        let (Some(slots), Some(send)) = (receive, send) else {
            return;
        };
        self.ports.lock_irq().push(Arc::new(ConsolePort {
            number,
            device: self.clone(),
            receive: SpinLock::new(ReceiveSide { slots, ready: VecDeque::new() }),
            send: SpinLock::new(send),
            present: AtomicBool::new(false),
            connected: AtomicBool::new(false),
            listener: Once::new(),
        }));
    }

    fn fill_receive_queues(&self) {
        while self.control.lock_irq().0.add(None) {}
        self.transport.notify(CONTROL_RX);
        for port in self.ports.lock_irq().iter() {
            while port.receive.lock_irq().slots.add(None) {}
            self.transport.notify(queues_of(port.number).0);
        }
    }

    fn send_control(&self, port: u32, event: u16, value: u16) {
        let mut message = [0; 8];
        message[..4].copy_from_slice(&port.to_le_bytes());
        message[4..6].copy_from_slice(&event.to_le_bytes());
        message[6..].copy_from_slice(&value.to_le_bytes());
        let mut control = self.control.lock_irq();
        control.1.reclaim();
        if !control.1.add(Some(&message)) {
            log::warn!("virtio-console: the control queue is full");
        }
        drop(control);
        self.transport.notify(CONTROL_TX);
    }

    /// Devices answer at once with the ports they have, while they are told that the driver is ready; a slower one gets a moment.
    fn wait_for_ports(&self) {
        let deadline = hal::clock::now() + 20_000_000;
        let any = || self.ports.lock_irq().iter().any(|p| p.present.load(Ordering::Acquire));
        self.handle_control();
        while !any() && hal::clock::now() < deadline {
            self.handle_control();
        }
    }

    /// Takes the device's control messages.
    fn handle_control(&self) {
        loop {
            let mut message = [0; 8];
            {
                let mut control = self.control.lock_irq();
                let Some((buffer, len)) = control.0.take() else {
                    return;
                };
                if len >= 8 {
                    let at = control.0.offset(buffer);
                    control.0.memory.read(at, &mut message);
                }
                control.0.free.push(buffer);
                control.0.add(None);
            }
            self.transport.notify(CONTROL_RX);
            let port = u32::from_le_bytes([message[0], message[1], message[2], message[3]]);
            let event = u16::from_le_bytes([message[4], message[5]]);
            let value = u16::from_le_bytes([message[6], message[7]]);
            match event {
                PORT_ADD => {
                    self.with_port(port, |p| p.present.store(true, Ordering::Release));
                    self.send_control(port, PORT_READY, 1);
                }
                PORT_OPEN => self.with_port(port, |p| {
                    p.connected.store(value != 0, Ordering::Release);
                    p.tell();
                }),
                _ => {}
            }
        }
    }

    fn with_port(&self, number: u32, f: impl FnOnce(&ConsolePort)) {
        let port = self.ports.lock_irq().iter().find(|p| p.number == number).cloned();
        if let Some(port) = port {
            f(&port);
        }
    }

    fn on_interrupt(&self) {
        self.transport.acknowledge();
        self.handle_control();
        for port in self.ports.lock_irq().iter() {
            port.on_interrupt();
        }
    }
}

impl ConsolePort {
    fn tell(&self) {
        if let Some(listener) = self.listener.get() {
            listener();
        }
    }

    fn on_interrupt(&self) {
        let news = self.receive.lock_irq().slots.queue.has_used() || self.send.lock_irq().queue.has_used();
        if news {
            self.receive.lock_irq().collect();
            self.send.lock_irq().reclaim();
            self.tell();
        }
    }
}

impl Port for ConsolePort {
    fn number(&self) -> u32 {
        self.number
    }

    fn set_open(&self, open: bool) {
        self.device.send_control(self.number, PORT_OPEN, u16::from(open));
    }

    fn read(&self, dst: &mut [u8]) -> usize {
        let mut side = self.receive.lock_irq();
        side.collect();
        let mut done = 0;
        let mut returned = false;
        while done < dst.len()
            && let Some((buffer, from, len)) = side.ready.pop_front()
        {
            let n = (len - from).min(dst.len() - done);
            let at = side.slots.offset(buffer) + from;
            side.slots.memory.read(at, &mut dst[done..done + n]);
            done += n;
            if from + n < len {
                side.ready.push_front((buffer, from + n, len));
            } else {
                side.slots.free.push(buffer);
                returned |= side.slots.add(None);
            }
        }
        drop(side);
        if returned {
            self.device.transport.notify(queues_of(self.number).0);
        }
        done
    }

    fn write(&self, src: &[u8]) -> usize {
        let mut send = self.send.lock_irq();
        send.reclaim();
        let mut done = 0;
        while done < src.len() {
            let n = (src.len() - done).min(TX_SIZE);
            if !send.add(Some(&src[done..done + n])) {
                break;
            }
            done += n;
        }
        let wanted = send.queue.wants_notification();
        drop(send);
        if done > 0 && wanted {
            self.device.transport.notify(queues_of(self.number).1);
        }
        done
    }

    fn can_read(&self) -> bool {
        let mut side = self.receive.lock_irq();
        side.collect();
        !side.ready.is_empty()
    }

    fn can_write(&self) -> bool {
        let mut send = self.send.lock_irq();
        send.reclaim();
        !send.free.is_empty()
    }

    fn host_connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }

    fn set_listener(&self, listener: Box<dyn Fn() + Send + Sync>) {
        let _ = self.listener.set(listener);
    }
}
