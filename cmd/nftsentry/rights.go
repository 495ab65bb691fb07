package main

import (
	"errors"
	"fmt"
	"io"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"nftsentry/conf"
	"nftsentry/listener"
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

// lockGroup is an NFLOG group that carries no messages: it is held by the one
// daemon of a network namespace. The kernel gives each group to one holder, who
// needs CAP_NET_ADMIN, and takes it back when the holder ends in whatever way.
const lockGroup = conf.MaxNFLOGGroup + 1

// lockNamespace makes sure that this is the only daemon in the network
// namespace: two would undo each other's table.
func lockNamespace() (io.Closer, error) {
	lock, err := listener.OpenNFLOG(lockGroup, zap.NewNop())
	if errors.Is(err, listener.ErrGroupTaken) {
		return nil, fmt.Errorf("another nftsentry is running in this network namespace: stop it first (it holds NFLOG group %d)", lockGroup)
	}
	if err != nil {
		return nil, fmt.Errorf("lock the network namespace: %w", err)
	}
	return lock, nil
}
