//! Boot order: memory, scheduler, processors, file systems, devices, the first process.

use hal::boot::{End, Initrd};
use hal::hooks::Hooks;
use hal::regs::UserRegs;
use hal::task::work;

/// The major number that Linux gives virtio disks.
const VIRTIO_BLOCK_MAJOR: u32 = 254;

hal::entry!(main);

/// The first program, in the initial file system, and what is tried where it isn't there.
const INIT: [&str; 4] = ["/.quintet/init", "/init", "/sbin/init", "/bin/sh"];

fn main() -> ! {
    mm::frames::init();
    hal::hooks::install(Hooks {
        syscall: syscall::dispatch,
        before_user,
        user_exception: process::signal::user_exception,
        page_fault: process::signal::user_fault,
        timer: sched::on_timer,
        reschedule: sched::on_kick,
        secondary_main,
    });
    sched::init_cpu();
    let machine = hal::boot::discover();
    let wanted = hal::boot::option("maxcpus").and_then(|n| n.parse().ok()).unwrap_or(machine.cpus);
    hal::boot::start_cpus(wanted.max(1));
    log::info!("{} processors", hal::cpu::count());
    sched::thread::spawn_kernel("init", move || start(machine));
    hal::boot::release_cpus();
    sched::run()
}

fn secondary_main() -> ! {
    sched::init_cpu();
    sched::run()
}

/// The way to user mode with something to do.
fn before_user(regs: &mut UserRegs) {
    let task = sched::with_current(|t| t.task().work());
    if task & work::RESCHEDULE != 0 {
        sched::reschedule();
    }
    if task & (work::SIGNAL | work::RSEQ) != 0 {
        sched::with_current(|t| t.task().clear_work(work::SIGNAL | work::RSEQ));
        process::signal::before_user(regs);
    }
}

/// The rest of the boot, in a thread of its own that may sleep.
fn start(machine: hal::boot::Machine) {
    net::procfs::register();
    net::sysfs::register();
    if let Err(error) = fs::boot::init() {
        panic!("the file systems can't be set up: {error}");
    }
    ipc::register();
    net::init();
    syscall::numbers::register();
    unpack_initrd();
    if let Err(error) = fs::boot::mount_early(false) {
        log::warn!("mounting /dev, /proc and /sys: {error}");
    }
    fs::writeback::start();
    mm::start_read_ahead();
    add_devices(machine);
    connect_processes();
    start_init();
}

/// What the layers below and above the processes ask of each other.
fn connect_processes() {
    process::init();
    process::exit::set_init_ended(|status| {
        log::error!("the first process ended with wait status {status:#x}: the machine stops");
        hal::boot::end(End::PowerOff)
    });
    syscall::system::set_reboot(|how| match how {
        syscall::system::Reboot::Restart => hal::boot::end(End::Restart),
        syscall::system::Reboot::Halt | syscall::system::Reboot::PowerOff => hal::boot::end(End::PowerOff),
    });
}

struct Reader(Initrd);

impl fs::initramfs::InitrdReader for Reader {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> base::Result<()> {
        let end = offset.checked_add(buffer.len() as u64).filter(|&end| end <= self.len());
        end.ok_or(base::Errno::EIO)?;
        self.0.read(offset as usize, buffer);
        Ok(())
    }

    fn physical(&self, offset: u64) -> Option<usize> {
        Some(self.0.physical(usize::try_from(offset).ok()?))
    }
}

fn unpack_initrd() {
    let (Some(initrd), Some(root)) = (hal::boot::initrd(), fs::boot::root()) else {
        log::warn!("no initial RAM disk: there is no program to run");
        return;
    };
    let reader = Reader(initrd.clone());
    let before = hal::clock::now();
    match fs::initramfs::unpack(&reader, &root) {
        Ok(done) => log::info!(
            "root: {} files, {} pages taken over, {} copied, in {} ms",
            done.files,
            done.pages_moved,
            done.pages_copied,
            (hal::clock::now() - before) / 1_000_000
        ),
        Err(error) => log::error!("the initial RAM disk is malformed at byte {}: {}", error.offset, error.errno),
    }
    mm::frames::note_more(initrd.len() / abi::PAGE_SIZE);
    initrd.release();
}

fn add_devices(machine: hal::boot::Machine) {
    let named =
        machine.virtio_mmio.iter().map(|d| drivers::virtio::MmioDevice { base: d.base, size: d.size, gsi: d.gsi });
    let (mut consoles, mut disks) = (0, 0);
    for device in drivers::virtio::find(named) {
        match device.device_type() {
            drivers::virtio::CONSOLE => {
                for port in drivers::virtio::console::start(device) {
                    let number = port.number();
                    if let Err(error) = fs::devices::port::add_port(consoles, port) {
                        log::warn!("console {consoles} port {number}: {error}");
                    }
                }
                consoles += 1;
            }
            drivers::virtio::NET => {
                if let Some(device) = drivers::virtio::net::start(device) {
                    net::link::add_device(device);
                }
            }
            drivers::virtio::NINEP => {
                if let Some(server) = drivers::virtio::exchange::start_ninep(device) {
                    fs::ninep::add_server(server);
                }
            }
            drivers::virtio::FS => {
                if let Some(server) = drivers::virtio::exchange::start_fs(device) {
                    fs::fuse::add_server(server);
                }
            }
            drivers::virtio::BLOCK => {
                if let Some(disk) = drivers::virtio::block::start(device) {
                    let name = fs::block::disk_name("vd", disks);
                    let sectors = disk.geometry().sectors;
                    log::info!("{name}: {} MiB", sectors / 2048);
                    if let Err(error) = fs::block::add_disk(&name, VIRTIO_BLOCK_MAJOR, disks, disk) {
                        log::warn!("{name}: {error}");
                    }
                    disks += 1;
                }
            }
            other => log::info!("virtio device of type {other} has no driver"),
        }
    }
}

fn start_init() {
    let Some(cx) = fs::boot::context() else { panic!("there is no root") };
    let files = fs::FdTable::new();
    let environment: [&[u8]; 2] = [b"HOME=/", b"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"];
    let chosen = hal::boot::option("rdinit");
    for path in chosen.iter().chain(&INIT) {
        let found = fs::open_exec(&cx, None, path.as_bytes(), true);
        if found.is_err() {
            continue;
        }
        log::info!("starting {path} after {} ms", hal::clock::now() / 1_000_000);
        match process::spawn_init(path.as_bytes(), &[path.as_bytes()], &environment, cx, files) {
            Ok(()) => return,
            Err(error) => panic!("{path} can't be started: {error}"),
        }
    }
    log::error!("no program to start: the root has none of {}", INIT.join(", "));
    hal::boot::end(End::PowerOff)
}
