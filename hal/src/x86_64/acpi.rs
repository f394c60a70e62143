//! What is needed of the firmware's tables: processors, I/O APICs, and virtio-mmio devices.
//!
//! MADT for the first two (ACPI 6.5, 5.2.12). Devices on the microvm machine stand in the DSDT as AML; instead of an interpreter, a
//! bounded scan finds the resource descriptors (6.4.3) that follow the hardware id of virtio-mmio. Without ACPI, the kernel's command
//! line names the devices, and QEMU's fw_cfg the number of processors.

use alloc::vec::Vec;

use super::cpu_regs::{inb, outw};
use super::kernel_map;

/// A virtio-mmio device: its registers and its interrupt.
#[derive(Clone, Copy, Debug)]
pub struct VirtioMmio {
    /// Physical address of the registers.
    pub base: usize,
    /// Bytes of registers.
    pub size: usize,
    /// Its global system interrupt.
    pub gsi: u32,
}

/// What the firmware tells of the machine.
#[derive(Default)]
pub(super) struct Machine {
    pub(super) apic_ids: Vec<u32>,
    /// Address and first global system interrupt.
    pub(super) io_apics: Vec<(usize, u32)>,
    pub(super) virtio: Vec<VirtioMmio>,
}

/// A table in physical memory, copied.
fn physical(address: usize, len: usize) -> Vec<u8> {
    let base = kernel_map::map_device(address, len);
    // SAFETY: `map_device` maps that many bytes; firmware tables don't change.
    (0..len).map(|i| unsafe { ((base + i) as *const u8).read_volatile() }).collect()
}

fn number(bytes: &[u8], at: usize, size: usize) -> Option<usize> {
    let field = bytes.get(at..at + size)?;
    Some(field.iter().rev().fold(0, |value, &byte| value << 8 | usize::from(byte)))
}

fn table(address: usize) -> Option<Vec<u8>> {
    let header = physical(address, 36);
    let len = number(&header, 4, 4)?;
    (36..=1 << 20).contains(&len).then(|| physical(address, len))
}

/// Reads the tables from the root pointer.
pub(super) fn read(rsdp: usize) -> Machine {
    let mut machine = Machine::default();
    for table in root_entries(rsdp).into_iter().filter_map(table) {
        match table.get(..4) {
            Some(b"APIC") => read_madt(&table, &mut machine),
            Some(b"FACP") => {
                let dsdt = number(&table, 140, 8).filter(|&a| a != 0).or_else(|| number(&table, 40, 4));
                if let Some(dsdt) = dsdt.filter(|&a| a != 0).and_then(self::table) {
                    machine.virtio = scan_for_virtio(&dsdt);
                }
            }
            _ => {}
        }
    }
    machine
}

fn root_entries(rsdp: usize) -> Vec<usize> {
    let pointer = physical(rsdp, 36);
    if pointer.get(..8) != Some(b"RSD PTR ") {
        return Vec::new();
    }
    let extended = number(&pointer, 15, 1).unwrap_or(0) >= 2;
    let xsdt = number(&pointer, 24, 8).filter(|&a| extended && a != 0);
    let (root, width) = match xsdt {
        Some(address) => (table(address), 8),
        None => (number(&pointer, 16, 4).filter(|&a| a != 0).and_then(table), 4),
    };
    let Some(root) = root else { return Vec::new() };
    (36..root.len()).step_by(width).filter_map(|at| number(&root, at, width)).filter(|&a| a != 0).collect()
}

fn read_madt(madt: &[u8], machine: &mut Machine) {
    let mut at = 44;
    while let (Some(kind), Some(len)) = (number(madt, at, 1), number(madt, at + 1, 1)) {
        if len < 2 {
            break;
        }
        match kind {
            0 if number(madt, at + 4, 4).unwrap_or(0) & 1 != 0 => {
                machine.apic_ids.extend(number(madt, at + 3, 1).map(|id| id as u32));
            }
            1 => {
                let entry = number(madt, at + 4, 4).zip(number(madt, at + 8, 4));
                machine.io_apics.extend(entry.map(|(address, gsi)| (address, gsi as u32)));
            }
            9 if number(madt, at + 8, 4).unwrap_or(0) & 1 != 0 => {
                machine.apic_ids.extend(number(madt, at + 4, 4).map(|id| id as u32));
            }
            _ => {}
        }
        at += len;
    }
}

/// Finds `_HID` "LNRO0005" and, before the next one, its Memory32Fixed and Extended Interrupt descriptors.
fn scan_for_virtio(dsdt: &[u8]) -> Vec<VirtioMmio> {
    const HID: &[u8] = b"LNRO0005";
    let starts: Vec<usize> = (0..dsdt.len()).filter(|&i| dsdt[i..].starts_with(HID)).collect();
    let mut found = Vec::new();
    for (n, &start) in starts.iter().enumerate() {
        let end = starts.get(n + 1).copied().unwrap_or(dsdt.len()).min(start + 256);
        let body = &dsdt[start..end];
        let find = |tag: &[u8]| (0..body.len()).find(|&i| body[i..].starts_with(tag));
        let (Some(memory), Some(irq)) = (find(&[0x86, 9, 0]), find(&[0x89, 6, 0])) else {
            continue;
        };
        if let (Some(base), Some(size), Some(gsi)) =
            (number(body, memory + 4, 4), number(body, memory + 8, 4), number(body, irq + 5, 4))
        {
            found.push(VirtioMmio { base, size, gsi: gsi as u32 });
        }
    }
    found
}

/// The number of processors by QEMU's fw_cfg (selector 5); 1 where there is none.
pub(super) fn fw_cfg_cpus() -> usize {
    let read = |selector: u16, bytes: &mut [u8]| {
        outw(0x510, selector);
        bytes.iter_mut().for_each(|b| *b = inb(0x511));
    };
    let mut signature = [0; 4];
    read(0, &mut signature);
    if &signature != b"QEMU" {
        return 1;
    }
    let mut count = [0; 2];
    read(5, &mut count);
    usize::from(u16::from_le_bytes(count)).max(1)
}

/// Devices that the command line names as Linux's does: `virtio_mmio.device=SIZE@BASE:IRQ`.
pub(super) fn from_command_line(line: &str) -> Vec<VirtioMmio> {
    let parse = |word: &str| -> Option<VirtioMmio> {
        let (size, rest) = word.strip_prefix("virtio_mmio.device=")?.split_once('@')?;
        let (base, rest) = rest.split_once(':')?;
        let gsi = rest.split(':').next()?.parse().ok()?;
        Some(VirtioMmio { base: parse_number(base)?, size: parse_number(size)?, gsi })
    };
    line.split_ascii_whitespace().filter_map(parse).collect()
}

fn parse_number(text: &str) -> Option<usize> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'K' | b'k' => (&text[..text.len() - 1], 10),
        b'M' | b'm' => (&text[..text.len() - 1], 20),
        _ => (text, 0),
    };
    let value = match digits.strip_prefix("0x") {
        Some(hex) => usize::from_str_radix(hex, 16).ok()?,
        None => digits.parse().ok()?,
    };
    value.checked_shl(shift)
}
