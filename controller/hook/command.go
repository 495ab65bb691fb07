package hook

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxOutput is how much of what a program prints is kept, in bytes.
	maxOutput = 4096
	// killAfter is how long a program may take to end when it is asked to.
	killAfter = time.Second
	// searchPath is the PATH of programs.
	searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	// runMark is the variable by which the processes of a run are told apart from all others.
	runMark = "NFTSENTRY_RUN"
	// ownFD is what a program finds open besides 0, 1 and 2: itself, which the interpreter of a script has to read.
	ownFD = 3
)

// A command is a program to run once.
type command struct {
	path  string // absolute
	args  []string
	env   []string
	stdin []byte
}

// run runs a program until it ends or ctx does: then its process group is asked to end if the time is up, and killed a
// second later, or at once if the Runner ends. Whatever the program has started and left behind is killed too. It returns
// the beginning of what was printed. The error is that of ctx if it ended first.
func (t trust) run(ctx context.Context, c command) (output []byte, err error) {
	program, err := t.program(c.path)
	if err != nil {
		return nil, err
	}
	defer program.Close()
	p, err := c.prepare(program)
	if err != nil {
		return nil, err
	}
	defer p.close()
	// The kernel kills the program when the thread that started it ends, which must not be before we are done.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return p.run(ctx)
}

// A process is a program that is about to run, or runs.
type process struct {
	cmd   *exec.Cmd
	mark  string // such as "NFTSENTRY_RUN=..."
	stdin *os.File
	read  *os.File // what it prints
	write *os.File
}

// prepare makes ready to run what is open.
func (c command) prepare(program *os.File) (*process, error) {
	p := &process{mark: runMark + "=" + rand.Text()}
	var err error
	if p.stdin, err = input(c.stdin); err != nil {
		return nil, err
	}
	if p.read, p.write, err = os.Pipe(); err != nil {
		return nil, errors.Join(err, p.stdin.Close())
	}
	p.cmd = &exec.Cmd{
		Path: fmt.Sprintf("/proc/self/fd/%d", ownFD), Args: append([]string{c.path}, c.args...), Dir: "/",
		Env:   append([]string{"PATH=" + searchPath, p.mark}, c.env...),
		Stdin: p.stdin, Stdout: p.write, Stderr: p.write, ExtraFiles: []*os.File{program},
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL},
	}
	return p, nil
}

// input is a file with some data to read, or /dev/null if there are none.
func input(data []byte) (*os.File, error) {
	if data == nil {
		return os.Open(os.DevNull)
	}
	fd, err := unix.MemfdCreate("mail", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a file in memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "mail")
	if _, err = f.Write(data); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (p *process) close() {
	for _, f := range []*os.File{p.stdin, p.read, p.write} {
		_ = f.Close() // nothing that was written is lost
	}
}

// run starts the process and waits for its end.
func (p *process) run(ctx context.Context) ([]byte, error) {
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("execute: %w", err)
	}
	_ = p.write.Close()
	began, _ := statOf(p.cmd.Process.Pid) // it is there until it is waited for
	var out capped
	exited := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = io.Copy(&out, p.read) }) // ends with the last writer, or at the deadline below
	wg.Go(func() {
		defer close(exited)
		p.await()
	})
	ended := p.end(ctx, exited)
	// While the process is not waited for, nobody else can have its group.
	p.signal(unix.SIGKILL)
	<-exited
	err := p.cmd.Wait()
	strays := sweep(p.mark, began.start)
	_ = p.read.SetReadDeadline(time.Now().Add(killAfter))
	wg.Wait()
	return out.Bytes(), errors.Join(ended, err, strays)
}

// await waits until the process has ended, and leaves it to be waited for.
func (p *process) await() {
	for {
		err := unix.Waitid(unix.P_PID, p.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// end waits for the end of the process or of ctx, whose error it returns.
func (p *process) end(ctx context.Context, exited <-chan struct{}) error {
	select {
	case <-exited:
		return nil
	case <-ctx.Done():
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		p.signal(unix.SIGTERM)
		select {
		case <-exited:
		case <-time.After(killAfter):
		}
	}
	return ctx.Err()
}

// signal signals the process group. One that is gone is none.
func (p *process) signal(s unix.Signal) { _ = unix.Kill(-p.cmd.Process.Pid, s) }

// A capped keeps the first maxOutput bytes.
type capped struct{ bytes.Buffer }

func (c *capped) Write(b []byte) (int, error) {
	_, _ = c.Buffer.Write(b[:min(len(b), maxOutput-c.Len())])
	return len(b), nil
}

// ReadFrom hides that of the buffer, which has no bounds.
func (c *capped) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{c}, r)
}

// sweep kills what a run that began at a time has left behind outside of its process group: it is known by the mark in
// its environment. What was started meanwhile is found in another round, and so is what just turns into another program.
func sweep(mark string, since uint64) error {
	for rounds, late := 0, time.Now().Add(killAfter); rounds < 50; {
		found, bare, err := marked(mark)
		if err != nil {
			return err
		}
		for _, pid := range found {
			if err := kill(pid, mark); err != nil {
				return err
			}
		}
		switch {
		case len(found) > 0:
			rounds++
		case time.Now().After(late) || !slices.ContainsFunc(bare, func(pid int) bool { return mayTurn(pid, since) }):
			return nil
		default:
			time.Sleep(time.Millisecond)
		}
	}
	return errors.New("processes that the program has started go on starting others")
}

// marked are the processes with a mark in their environment, and those that show none at all or are gone by now; of other
// users, if they may be looked at.
func marked(mark string) (found, bare []int, err error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, nil, err
	}
	names, err := dir.Readdirnames(-1)
	if err = errors.Join(err, dir.Close()); err != nil {
		return nil, nil, err
	}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		switch env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)); {
		case err == nil && len(env) == 0, errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ESRCH):
			bare = append(bare, pid)
		case err == nil && isMarked(env, mark):
			found = append(found, pid)
		}
	}
	return found, bare, nil
}

func isMarked(env []byte, mark string) bool {
	return strings.Contains("\x00"+string(env), "\x00"+mark+"\x00")
}

// hasMark says whether a process has a mark in its environment; one that has ended has none.
func hasMark(pid int, mark string) bool {
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	return err == nil && isMarked(env, mark)
}

// mayTurn says whether a process that shows no environment may be about to have one: within execve(2) it has none. One
// that has ended since may have started another.
func mayTurn(pid int, since uint64) bool {
	s, err := statOf(pid)
	return err != nil || s.start >= since && !s.kernel && !s.dead
}

// A procStat is what proc_pid_stat(5) says of a process.
type procStat struct {
	dead   bool   // it has ended, and is waited for
	kernel bool   // a thread of the kernel
	start  uint64 // in ticks since the machine has started
}

// statOf looks at a process. The error is that it is not there.
func statOf(pid int) (procStat, error) {
	const flags, start, kthread = 6, 19, 0x00200000 // PF_KTHREAD of include/linux/sched.h; fields are counted from the state
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return procStat{}, err
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) <= start {
		return procStat{}, fmt.Errorf("process %d: %w", pid, io.ErrUnexpectedEOF)
	}
	bits, err1 := strconv.ParseUint(fields[flags], 10, 64)
	began, err2 := strconv.ParseUint(fields[start], 10, 64)
	return procStat{strings.ContainsAny(fields[0], "ZXx"), bits&kthread != 0, began}, errors.Join(err1, err2)
}

// kill kills a process that has a mark, by a handle, since its number may have become that of another.
func kill(pid int, mark string) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	if !hasMark(pid, mark) {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", pid, err)
	}
	// It is gone for good when the handle becomes readable.
	_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(killAfter.Milliseconds()))
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("wait for process %d: %w", pid, err)
	}
	return nil
}
