package controller

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// Intact tells whether the table is there.
func (k *fakeKernel) Intact() (bool, error) { return k.loaded && !k.damaged, nil }

// Reshape takes the damage away.
func (k *fakeKernel) Reshape() error {
	if !k.loaded {
		return unix.ENOENT
	}
	k.damaged = false
	return nil
}

// HostPrefix is what a key of a set of hosts stands for.
func (k *fakeKernel) HostPrefix(key netip.Addr) netip.Prefix {
	if wide := netip.PrefixFrom(key, k.cfg.Prefix6); key.Is6() && wide.Masked() == wide {
		return wide
	}
	return netip.PrefixFrom(key, key.BitLen())
}

// RestoreNets does nothing: this kernel keeps prefixes as they are.
func (k *fakeKernel) RestoreNets() error {
	if !k.loaded {
		return unix.ENOENT
	}
	return nil
}
