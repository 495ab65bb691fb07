package survey

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"
)

var families = map[byte]string{
	unix.NFPROTO_INET: "inet", unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6",
	unix.NFPROTO_ARP: "arp", unix.NFPROTO_BRIDGE: "bridge", unix.NFPROTO_NETDEV: "netdev",
}

// hookName names a hook by its number, whose meaning depends on the family.
// https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/include/uapi/linux/netfilter.h
func hookName(family byte, n uint32) string {
	names := []string{"prerouting", "input", "forward", "output", "postrouting", "ingress"}
	switch family {
	case unix.NFPROTO_NETDEV:
		names = []string{"ingress", "egress"}
	case unix.NFPROTO_ARP:
		names = []string{"input", "output", "forward"}
	}
	if int(n) >= len(names) {
		return "unknown"
	}
	return names[n]
}

// chain takes in what the kernel tells of a chain.
func (s *reader) chain(family byte, a attributes) {
	c := &Chain{Name: text(a[unix.NFTA_CHAIN_NAME]), Type: text(a[unix.NFTA_CHAIN_TYPE])}
	if hook, base := a[unix.NFTA_CHAIN_HOOK]; base {
		h := decode(hook)
		c.Hook = hookName(family, number(h[unix.NFTA_HOOK_HOOKNUM]))
		c.Priority = int(int32(number(h[unix.NFTA_HOOK_PRIORITY])))
		c.Policy = "accept"
		if policy, told := a[unix.NFTA_CHAIN_POLICY]; told && number(policy) == nfDrop {
			c.Policy = "drop"
		}
	}
	key := id{family, text(a[unix.NFTA_CHAIN_TABLE]), c.Name}
	s.order = append(s.order, key)
	s.chains[key] = c
}

// Verdicts, include/uapi/linux/netfilter.h and nf_tables.h.
const (
	nfDrop   = 0
	nfAccept = 1
)

// A verdict is a code and, for those that lead to a chain, its name.
type verdict struct {
	code  int32
	chain string
}

// unconditional are the expressions that match every packet.
var unconditional = []string{"immediate", "reject", "counter", "log", "target", "objref", "notrack"}

// rule tells what a rule can do, from its expressions.
func (s *reader) rule(in id, exprs []byte) Rule {
	r := Rule{Always: true}
	status := false // a register holds "ct status"
	each(exprs, func(_ uint16, elem []byte) {
		e := decode(elem)
		data := decode(e[unix.NFTA_EXPR_DATA])
		name := text(e[unix.NFTA_EXPR_NAME])
		r.Always = r.Always && slices.Contains(unconditional, name)
		switch name {
		case "immediate":
			r.take(verdictOf(data[unix.NFTA_IMMEDIATE_DATA]))
		case "lookup":
			if reg, maps := data[unix.NFTA_LOOKUP_DREG]; maps && number(reg) == unix.NFT_REG_VERDICT {
				r.take(s.verdicts(in, text(data[unix.NFTA_LOOKUP_SET]))...)
			}
		case "reject":
			r.Drops = true
		case "redir", "tproxy":
			r.Translates = true
		case "nat":
			r.Translates = r.Translates || number(data[unix.NFTA_NAT_TYPE]) == unix.NFT_NAT_DNAT
		case "target":
			r.target(text(data[unix.NFTA_TARGET_NAME]))
		case "ct":
			status = number(data[unix.NFTA_CT_KEY]) == unix.NFT_CT_STATUS
		case "bitwise":
			r.Redirected = r.Redirected || status && hasDNAT(decode(data[unix.NFTA_BITWISE_MASK])[unix.NFTA_DATA_VALUE])
		}
	})
	return r
}

// hasDNAT tells whether a mask of "ct status" has the bit of connections that were led elsewhere.
func hasDNAT(mask []byte) bool {
	const ipsDstNAT = 1 << 5 // IPS_DST_NAT, include/uapi/linux/netfilter/nf_conntrack_common.h
	return len(mask) == 4 && binary.NativeEndian.Uint32(mask)&ipsDstNAT != 0
}

// target takes in a target of iptables that iptables-nft leaves as it is.
func (r *Rule) target(name string) {
	switch name {
	case "DROP", "REJECT", "TARPIT":
		r.Drops = true
	case "DNAT", "REDIRECT", "NETMAP", "TPROXY":
		r.Translates = true
	}
}

func (r *Rule) take(all ...verdict) {
	for _, v := range all {
		switch {
		case v.chain != "":
			r.Leads = append(r.Leads, v.chain)
		case v.code == nfDrop:
			r.Drops = true
		case v.code == nfAccept:
			r.Accepts = true
		}
	}
}

// noVerdict changes nothing.
var noVerdict = verdict{code: unix.NFT_CONTINUE}

// verdictOf reads a verdict of the attributes of data, which may be another value.
func verdictOf(raw []byte) verdict {
	v, found := decode(raw)[unix.NFTA_DATA_VERDICT]
	if !found {
		return noVerdict
	}
	a := decode(v)
	code, found := a[unix.NFTA_VERDICT_CODE]
	if !found {
		return noVerdict
	}
	return verdict{int32(number(code)), text(a[unix.NFTA_VERDICT_CHAIN])}
}

// verdicts are those of a map. One that cannot be read, since it has just been deleted, has none.
func (s *reader) verdicts(in id, set string) []verdict {
	key := id{in.family, in.table, set}
	if known, found := s.maps[key]; found {
		return known
	}
	var all []verdict
	names := map[uint16]string{unix.NFTA_SET_ELEM_LIST_TABLE: in.table, unix.NFTA_SET_ELEM_LIST_SET: set}
	err := s.dump(unix.NFT_MSG_GETSETELEM, in.family, names, func(_ byte, a attributes) {
		each(a[unix.NFTA_SET_ELEM_LIST_ELEMENTS], func(_ uint16, elem []byte) {
			if data, found := decode(elem)[unix.NFTA_SET_ELEM_DATA]; found {
				all = append(all, verdictOf(data))
			}
		})
	})
	s.torn = s.torn || err != nil
	s.maps[key] = all
	return all
}
