//! `/proc/cpuinfo`.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::arch::x86_64::__cpuid;

use base::Result;

/// Names of the feature bits of leaf 1, register edx, from bit 0 on; empty where there is none.
const LEAF1_EDX: [&str; 32] = [
    "fpu", "vme", "de", "pse", "tsc", "msr", "pae", "mce", "cx8", "apic", "", "sep", "mtrr", "pge", "mca", "cmov",
    "pat", "pse36", "pn", "clflush", "", "dts", "acpi", "mmx", "fxsr", "sse", "sse2", "ss", "ht", "tm", "ia64", "pbe",
];
/// Leaf 1, register ecx.
const LEAF1_ECX: [&str; 32] = [
    "pni",
    "pclmulqdq",
    "dtes64",
    "monitor",
    "ds_cpl",
    "vmx",
    "smx",
    "est",
    "tm2",
    "ssse3",
    "cid",
    "sdbg",
    "fma",
    "cx16",
    "xtpr",
    "pdcm",
    "",
    "pcid",
    "dca",
    "sse4_1",
    "sse4_2",
    "x2apic",
    "movbe",
    "popcnt",
    "tsc_deadline_timer",
    "aes",
    "xsave",
    "",
    "avx",
    "f16c",
    "rdrand",
    "hypervisor",
];
/// Leaf 7, register ebx.
const LEAF7_EBX: [&str; 32] = [
    "fsgsbase",
    "tsc_adjust",
    "",
    "bmi1",
    "hle",
    "avx2",
    "",
    "smep",
    "bmi2",
    "erms",
    "invpcid",
    "rtm",
    "",
    "",
    "mpx",
    "",
    "avx512f",
    "avx512dq",
    "rdseed",
    "adx",
    "smap",
    "avx512ifma",
    "",
    "clflushopt",
    "clwb",
    "",
    "avx512pf",
    "avx512er",
    "avx512cd",
    "sha_ni",
    "avx512bw",
    "avx512vl",
];

fn push_names(out: &mut String, names: &[&str; 32], bits: u32) {
    for (bit, name) in names.iter().enumerate() {
        if !name.is_empty() && bits & (1 << bit) != 0 {
            out.push(' ');
            out.push_str(name);
        }
    }
}

fn flags(max: u32) -> String {
    let mut out = String::new();
    let one = __cpuid(1);
    push_names(&mut out, &LEAF1_EDX, one.edx);
    let extended = if __cpuid(0x8000_0000).eax > 0x8000_0000 { __cpuid(0x8000_0001) } else { __cpuid(0x8000_0000) };
    for (bit, name) in [(11, "syscall"), (20, "nx"), (26, "pdpe1gb"), (27, "rdtscp"), (29, "lm")] {
        if extended.edx & (1 << bit) != 0 {
            out.push(' ');
            out.push_str(name);
        }
    }
    push_names(&mut out, &LEAF1_ECX, one.ecx);
    if max >= 7 {
        push_names(&mut out, &LEAF7_EBX, __cpuid(7).ebx);
    }
    out
}

/// The text of registers, NULs and blanks around it cut off.
fn text(registers: &[u32]) -> String {
    let bytes: Vec<u8> = registers.iter().flat_map(|r| r.to_le_bytes()).filter(|&b| b != 0).collect();
    String::from_utf8_lossy(&bytes).trim().into()
}

fn model_name() -> String {
    if __cpuid(0x8000_0000).eax < 0x8000_0004 {
        return "unknown".into();
    }
    let registers: Vec<u32> = (0x8000_0002..=0x8000_0004)
        .flat_map(|leaf| {
            let r = __cpuid(leaf);
            [r.eax, r.ebx, r.ecx, r.edx]
        })
        .collect();
    text(&registers)
}

/// The file's content.
pub(super) fn read() -> Result<Vec<u8>> {
    let zero = __cpuid(0);
    let signature = __cpuid(1).eax;
    let base_family = (signature >> 8) & 0xf;
    let family = if base_family == 0xf { base_family + ((signature >> 20) & 0xff) } else { base_family };
    let base_model = (signature >> 4) & 0xf;
    let model = if matches!(base_family, 6 | 0xf) { base_model | (signature >> 12) & 0xf0 } else { base_model };
    let (vendor, name, flags) = (text(&[zero.ebx, zero.edx, zero.ecx]), model_name(), flags(zero.eax));
    let mut out = String::new();
    let cpus = hal::cpu::count();
    for cpu in 0..cpus {
        out.push_str(&format!(
            "processor\t: {cpu}\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: {model}\nmodel name\t: {name}\n\
             stepping\t: {}\nphysical id\t: 0\nsiblings\t: {cpus}\ncore id\t\t: {cpu}\n\
             cpu cores\t: {cpus}\napicid\t\t: {cpu}\ninitial apicid\t: {cpu}\nfpu\t\t: yes\nfpu_exception\t: yes\n\
             cpuid level\t: {}\nwp\t\t: yes\nflags\t\t:{flags}\nbugs\t\t:\nclflush size\t: 64\n\
             cache_alignment\t: 64\naddress sizes\t: 40 bits physical, 48 bits virtual\npower management:\n\n",
            signature & 0xf,
            zero.eax,
        ));
    }
    Ok(out.into_bytes())
}
