import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardWatchEventKinds;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CyclicBarrier;
import java.util.concurrent.Executors;
import java.util.concurrent.ForkJoinPool;
import java.util.concurrent.Future;
import java.util.concurrent.RecursiveTask;
import java.util.concurrent.SynchronousQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.locks.LockSupport;
import java.util.concurrent.locks.ReentrantLock;

/** What Java's run-time asks of a kernel, a part at a time: {@code java Parts.java PART}. Status 0 if all is well. */
public class Parts {
    public static void main(String[] arguments) throws Exception {
        switch (arguments[0]) {
            case "locks" -> locks();
            case "parking" -> parking();
            case "monitors" -> monitors();
            case "deadlock" -> deadlock();
            case "forkjoin" -> forkJoin();
            case "selector" -> selector(null);
            case "unix" -> selector(Files.createTempDirectory("java").resolve("socket"));
            case "processes" -> processes();
            case "watch" -> watch();
            case "interrupts" -> interrupts();
            default -> throw new IllegalArgumentException(arguments[0]);
        }
        System.exit(0);
    }

    static void check(boolean holds, String what) {
        if (!holds) throw new AssertionError(what);
    }

    interface Work { void run() throws Exception; }

    static void inThreads(int count, Work work) throws Exception {
        var pool = Executors.newFixedThreadPool(count);
        List<Future<?>> all = new ArrayList<>();
        for (int i = 0; i < count; i++) all.add(pool.submit(() -> { work.run(); return null; }));
        for (var one : all) one.get(60, TimeUnit.SECONDS);
        pool.shutdown();
        check(pool.awaitTermination(60, TimeUnit.SECONDS), "threads end");
    }

    static int shared;

    static void locks() throws Exception {
        var lock = new ReentrantLock(true);
        var barrier = new CyclicBarrier(8);
        inThreads(8, () -> {
            barrier.await();
            for (int i = 0; i < 300; i++) {
                lock.lock();
                try { shared++; } finally { lock.unlock(); }
            }
        });
        check(shared == 2400, "2400 steps, not " + shared);
    }

    static void parking() throws Exception {
        var queue = new SynchronousQueue<Integer>();
        var sum = new AtomicInteger();
        var taker = new Thread(() -> {
            try { for (int i = 0; i < 500; i++) sum.addAndGet(queue.take()); } catch (InterruptedException e) { sum.set(-1); }
        });
        taker.start();
        for (int i = 0; i < 500; i++) queue.put(i);
        taker.join(60_000);
        check(sum.get() == 500 * 499 / 2, "sum " + sum);
        // The queue may have left a permit, with which parking ends at once.
        LockSupport.parkNanos(1);
        long start = System.nanoTime();
        LockSupport.parkNanos(30_000_000);
        check(System.nanoTime() - start >= 29_000_000, "parked too briefly");
    }

    static void monitors() throws Exception {
        Object monitor = new Object();
        int[] turn = {0};
        var next = new AtomicInteger();
        inThreads(4, () -> {
            int mine = next.getAndIncrement();
            for (int round = 0; round < 100; round++) {
                synchronized (monitor) {
                    while (turn[0] % 4 != mine) monitor.wait(60_000);
                    turn[0]++;
                    monitor.notifyAll();
                }
            }
        });
        check(turn[0] == 400, "400 turns, not " + turn[0]);
    }

    static void deadlock() throws Exception {
        Object a = new Object(), b = new Object();
        var both = new CyclicBarrier(2);
        Object[][] orders = {{a, b}, {b, a}};
        for (var order : orders) {
            var thread = new Thread(() -> {
                synchronized (order[0]) {
                    try { both.await(); } catch (Exception e) { throw new RuntimeException(e); }
                    synchronized (order[1]) { throw new AssertionError("both were had"); }
                }
            });
            thread.setDaemon(true);
            thread.start();
        }
        var bean = ManagementFactory.getThreadMXBean();
        for (int i = 0; i < 600 && bean.findDeadlockedThreads() == null; i++) Thread.sleep(50);
        check(bean.findDeadlockedThreads().length == 2, "two threads wait for each other");
    }

    static class Sum extends RecursiveTask<Long> {
        final int from, to;
        Sum(int from, int to) { this.from = from; this.to = to; }
        @Override protected Long compute() {
            if (to - from < 1000) { long sum = 0; for (int i = from; i < to; i++) sum += i; return sum; }
            var left = new Sum(from, (from + to) / 2);
            left.fork();
            return new Sum((from + to) / 2, to).compute() + left.join();
        }
    }

    static void forkJoin() {
        check(new ForkJoinPool(4).invoke(new Sum(0, 500_000)) == 500_000L * 499_999 / 2, "the sum");
    }

    static void selector(Path path) throws Exception {
        var family = path == null ? StandardProtocolFamily.INET : StandardProtocolFamily.UNIX;
        var server = ServerSocketChannel.open(family);
        server.bind(path == null ? new InetSocketAddress(InetAddress.getLoopbackAddress(), 0) : UnixDomainSocketAddress.of(path));
        server.configureBlocking(false);
        var selector = Selector.open();
        server.register(selector, SelectionKey.OP_ACCEPT);
        var echo = new Thread(() -> { try { echo(selector, server); } catch (IOException e) { e.printStackTrace(); System.exit(1); } });
        echo.setDaemon(true);
        echo.start();
        inThreads(16, () -> {
            try (var client = SocketChannel.open(server.getLocalAddress())) {
                for (int round = 0; round < 20; round++) {
                    client.write(ByteBuffer.wrap(("message " + round).getBytes()));
                    var answer = ByteBuffer.allocate(("message " + round).length());
                    while (answer.hasRemaining()) check(client.read(answer) > 0, "the end");
                    check(new String(answer.array()).equals("message " + round), "the answer");
                }
            }
        });
        selector.wakeup();
        selector.close();
    }

    static void echo(Selector selector, ServerSocketChannel server) throws IOException {
        while (selector.isOpen()) {
            selector.select();
            if (!selector.isOpen()) return;
            for (var keys = selector.selectedKeys().iterator(); keys.hasNext(); keys.remove()) {
                var key = keys.next();
                if (key.isAcceptable()) {
                    var client = server.accept();
                    if (client == null) continue;
                    client.configureBlocking(false);
                    client.register(selector, SelectionKey.OP_READ);
                } else {
                    var client = (SocketChannel) key.channel();
                    var buffer = ByteBuffer.allocate(1000);
                    if (client.read(buffer) < 0) { client.close(); continue; }
                    buffer.flip();
                    while (buffer.hasRemaining()) client.write(buffer);
                }
            }
        }
    }

    static void processes() throws Exception {
        inThreads(4, () -> {
            for (int i = 0; i < 3; i++) {
                var process = new ProcessBuilder("sh", "-c", "read line; echo \"$line\" twice; exit 7").start();
                process.outputWriter().append("once\n").close();
                check(new String(process.getInputStream().readAllBytes()).equals("once twice\n"), "its output");
                check(process.waitFor() == 7, "its status");
            }
        });
        var sleeper = new ProcessBuilder("sleep", "100").start();
        sleeper.destroy();
        check(sleeper.waitFor() == 143, "ended by SIGTERM");
    }

    static void watch() throws Exception {
        var folder = Files.createTempDirectory("java");
        var watcher = folder.getFileSystem().newWatchService();
        folder.register(watcher, StandardWatchEventKinds.ENTRY_CREATE);
        Files.writeString(folder.resolve("new"), "x");
        var key = watcher.poll(60, TimeUnit.SECONDS);
        check(key != null && key.pollEvents().get(0).context().toString().equals("new"), "the event");
    }

    static void interrupts() throws Exception {
        var seen = new AtomicInteger();
        var sleeper = new Thread(() -> { try { Thread.sleep(60_000); } catch (InterruptedException e) { seen.set(1); } });
        sleeper.start();
        Thread.sleep(50);
        sleeper.interrupt();
        sleeper.join(30_000);
        check(seen.get() == 1, "a sleep is cut short");
    }
}
