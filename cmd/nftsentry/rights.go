package main

import (
	"errors"
	"fmt"
	"io"
	"net"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// capabilities are those that the daemon needs, by their numbers in
// include/uapi/linux/capability.h.
var capabilities = []struct {
	number int
	name   string
}{
	{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"},
	{unix.CAP_NET_BIND_SERVICE, "CAP_NET_BIND_SERVICE"},
}

// checkRights tells a person without rights so, before anything is tried.
func checkRights() error {
	var data [2]unix.CapUserData
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("read the own capabilities: %w", err)
	}
	for _, c := range capabilities {
		if data[c.number/32].Effective&(1<<(c.number%32)) == 0 {
			return fmt.Errorf("no right to guard this host (%s): run it as root, such as with sudo", c.name)
		}
	}
	return nil
}

// lockName is a name in the abstract namespace of unix sockets, of which each
// network namespace has its own: it is held by the one daemon there.
const lockName = "@nftsentry"

// lockNamespace makes sure that this is the only daemon in the network
// namespace: two would undo each other's table.
func lockNamespace(log *zap.Logger) (io.Closer, error) {
	l, err := net.Listen("unix", lockName)
	if err == nil {
		return l, nil
	}
	if !errors.Is(err, unix.EADDRINUSE) {
		return nil, fmt.Errorf("lock the network namespace: %w", err)
	}
	holder, err := lockHolder()
	if err != nil {
		return nil, fmt.Errorf("another nftsentry is running in this network namespace: stop it first (%w)", err)
	}
	if holder.Uid != 0 && int(holder.Uid) != unix.Geteuid() {
		// Anybody may take the name, but only root can have a daemon.
		log.Warn("somebody holds our lock who cannot guard this host; going on without it",
			zap.Int32("pid", holder.Pid), zap.Uint32("uid", holder.Uid))
		return io.NopCloser(nil), nil
	}
	return nil, fmt.Errorf("another nftsentry (process %d) is running in this network namespace: stop it first", holder.Pid)
}

func lockHolder() (*unix.Ucred, error) {
	conn, err := net.Dial("unix", lockName)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) {
		cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil, err
	}
	return cred, failed
}
