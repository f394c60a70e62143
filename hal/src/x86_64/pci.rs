//! PCI configuration space by the mechanism that every PC has (ports 0xcf8 and 0xcfc).

use super::cpu_regs::{inl, outl};
use crate::sync::SpinLock;

static PORTS: SpinLock<()> = SpinLock::new(());

fn address(bus: u8, device: u8, function: u8, register: u8) -> u32 {
    1 << 31
        | u32::from(bus) << 16
        | u32::from(device & 31) << 11
        | u32::from(function & 7) << 8
        | u32::from(register & 0xfc)
}

pub(crate) fn read(bus: u8, device: u8, function: u8, register: u8) -> u32 {
    let _guard = PORTS.lock_irq();
    outl(0xcf8, address(bus, device, function, register));
    inl(0xcfc)
}

pub(crate) fn write(bus: u8, device: u8, function: u8, register: u8, value: u32) {
    let _guard = PORTS.lock_irq();
    outl(0xcf8, address(bus, device, function, register));
    outl(0xcfc, value);
}
