//! What this processor can do, found once on the boot processor.

use super::cpu_regs::cpuid;
use crate::sync::Once;

/// The features that the kernel makes a choice on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Features {
    pub(super) nx: bool,
    pub(super) smep: bool,
    pub(super) smap: bool,
    pub(super) umip: bool,
    pub(super) fsgsbase: bool,
    pub(super) pdpe1gb: bool,
    pub(super) x2apic: bool,
    pub(super) tsc_deadline: bool,
    pub(super) xsave: bool,
    pub(super) xsaveopt: bool,
    pub(super) fsrm: bool,
    pub(super) rdtscp: bool,
    pub(super) rdrand: bool,
    pub(super) rdseed: bool,
    /// Under QEMU's TCG, whose LAPIC timer runs at a known rate.
    pub(super) tcg: bool,
    /// The hypervisor's TSC rate in kHz, if it tells.
    pub(super) tsc_khz: Option<u32>,
}

static FEATURES: Once<Features> = Once::new();

pub(super) fn get() -> &'static Features {
    FEATURES.get_or_init(detect)
}

fn detect() -> Features {
    let max = cpuid(0, 0).eax;
    let one = cpuid(1, 0);
    let seven = if max >= 7 { cpuid(7, 0) } else { cpuid(0x8000_0000, 0) };
    let seven = (max >= 7).then_some(seven);
    let ext = cpuid(0x8000_0001, 0);
    let xsave = one.ecx & 1 << 26 != 0;
    let xsaveopt = xsave && max >= 0xd && cpuid(0xd, 1).eax & 1 != 0;
    let (tcg, tsc_khz) = hypervisor(one.ecx & 1 << 31 != 0, max);
    let ebx7 = seven.map_or(0, |s| s.ebx);
    let edx7 = seven.map_or(0, |s| s.edx);
    let ecx7 = seven.map_or(0, |s| s.ecx);
    Features {
        nx: ext.edx & 1 << 20 != 0,
        smep: ebx7 & 1 << 7 != 0,
        smap: ebx7 & 1 << 20 != 0,
        umip: ecx7 & 1 << 2 != 0,
        fsgsbase: ebx7 & 1 != 0,
        pdpe1gb: ext.edx & 1 << 26 != 0,
        x2apic: one.ecx & 1 << 21 != 0,
        tsc_deadline: one.ecx & 1 << 24 != 0,
        xsave,
        xsaveopt,
        fsrm: edx7 & 1 << 4 != 0,
        rdtscp: ext.edx & 1 << 27 != 0,
        rdrand: one.ecx & 1 << 30 != 0,
        rdseed: ebx7 & 1 << 18 != 0,
        tcg,
        tsc_khz,
    }
}

fn hypervisor(present: bool, max: u32) -> (bool, Option<u32>) {
    let mut khz = None;
    if max >= 0x15 {
        let leaf = cpuid(0x15, 0);
        if leaf.eax != 0 && leaf.ebx != 0 && leaf.ecx != 0 {
            khz = u32::try_from(u64::from(leaf.ecx) * u64::from(leaf.ebx) / u64::from(leaf.eax) / 1000).ok();
        }
    }
    if !present {
        return (false, khz);
    }
    let hv = cpuid(0x4000_0000, 0);
    if hv.eax >= 0x4000_0010 {
        let timing = cpuid(0x4000_0010, 0);
        khz = khz.or((timing.eax != 0).then_some(timing.eax));
    }
    (hv.ebx.to_le_bytes() == *b"TCGT", khz)
}
