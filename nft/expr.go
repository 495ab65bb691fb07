package nft

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Registers. The first 16-byte register and the 4-byte register 00 are the
// same memory; the second part of a concatenation goes to 32-bit register 01.
// https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/include/uapi/linux/netfilter/nf_tables.h
const (
	reg1   = unix.NFT_REG_1
	reg32b = unix.NFT_REG32_01
)

// TCP flags, RFC 9293 section 3.1.
const (
	flagFIN = 0x01
	flagSYN = 0x02
	flagRST = 0x04
	flagACK = 0x10
)

// A rule is the list of its statements, in nft(8)'s order.
type rule []expr.Any

// of joins parts of a rule.
func of(parts ...rule) rule {
	var all rule
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func cmpEq(data []byte) expr.Any  { return &expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: data} }
func cmpNeq(data []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: data} }

func metaEq(key expr.MetaKey, data []byte) rule {
	return rule{&expr.Meta{Key: key, Register: reg1}, cmpEq(data)}
}

// nfproto is "meta nfproto ipv4" or "meta nfproto ipv6".
func nfproto(f family) rule { return metaEq(expr.MetaKeyNFPROTO, []byte{f.nfproto}) }

// l4proto is "meta l4proto tcp" and the like.
func l4proto(p byte) rule { return metaEq(expr.MetaKeyL4PROTO, []byte{p}) }

// iifLo is `iif "lo"`: the loopback interface has index 1 in every network namespace.
func iifLo() rule { return metaEq(expr.MetaKeyIIF, binaryutil.NativeEndian.PutUint32(1)) }

// iifname is `iifname "NAME"`.
func iifname(name string) rule {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return metaEq(expr.MetaKeyIIFNAME, padded)
}

// saddr is "ip saddr" or "ip6 saddr" in register 1.
func saddr(f family) rule {
	return of(nfproto(f), rule{&expr.Payload{
		DestRegister: reg1, Base: expr.PayloadBaseNetworkHeader, Offset: f.saddrOffset, Len: f.bytes,
	}})
}

// saddrIn is "ip saddr @SET" or "ip6 saddr @SET".
func saddrIn(f family, set *nftables.Set) rule { return of(saddr(f), in(set)) }

// saddrMaskedIn is "ip6 saddr & MASK @SET".
func saddrMaskedIn(f family, bits int, set *nftables.Set) rule {
	mask := netip.PrefixFrom(f.last, bits).Masked().Addr().AsSlice()
	and := &expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: f.bytes, Mask: mask, Xor: make([]byte, f.bytes)}
	return of(saddr(f), rule{and}, in(set))
}

// in looks register 1 up in a set.
func in(set *nftables.Set) rule {
	return rule{&expr.Lookup{SourceRegister: reg1, SetName: set.Name, SetID: set.ID}}
}

// tcpDport is "tcp dport @SET".
func tcpDport(set *nftables.Set) rule {
	return of(l4proto(unix.IPPROTO_TCP), rule{dport(reg1)}, in(set))
}

func dport(register uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}
}

// service is "meta l4proto . th dport" in register 1 and the one after it.
func service() rule {
	return rule{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg1}, dport(reg32b)}
}

// opensConnection is "tcp flags & (fin | syn | rst | ack) OP syn": a packet
// that opens a TCP connection has SYN alone of these four.
func opensConnection(op expr.CmpOp) rule {
	return of(l4proto(unix.IPPROTO_TCP), rule{
		&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 1, Mask: []byte{flagFIN | flagSYN | flagRST | flagACK}, Xor: []byte{0}},
		&expr.Cmp{Op: op, Register: reg1, Data: []byte{flagSYN}},
	})
}

// socketIn is "socket wildcard @SET" with the set of both values: true if and
// only if a local socket would take the packet.
func socketIn(both *nftables.Set) rule {
	return of(rule{&expr.Socket{Key: expr.SocketKeyWildcard, Register: reg1}}, in(both))
}

// notLocal is "fib daddr type != local".
func notLocal() rule {
	return rule{
		&expr.Fib{Register: reg1, FlagDADDR: true, ResultADDRTYPE: true},
		cmpNeq(binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)),
	}
}

// reply is "ct direction reply ct state established,related".
func reply() rule {
	const directionReply = 1 // IP_CT_DIR_REPLY, include/uapi/linux/netfilter/nf_conntrack_tuple_common.h
	states := binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED)
	return rule{
		&expr.Ct{Key: expr.CtKeyDIRECTION, Register: reg1}, cmpEq([]byte{directionReply}),
		&expr.Ct{Key: expr.CtKeySTATE, Register: reg1},
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4, Mask: states, Xor: make([]byte, 4)},
		cmpNeq(make([]byte, 4)),
	}
}

// icmpv6In is "icmpv6 type @SET".
func icmpv6In(set *nftables.Set) rule {
	typ := &expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1}
	return of(l4proto(unix.IPPROTO_ICMPV6), rule{typ}, in(set))
}

// add is "add @SET { what register 1 holds }".
func add(set *nftables.Set) rule {
	return rule{&expr.Dynset{SrcRegKey: reg1, SetName: set.Name, SetID: set.ID, Operation: unix.NFT_DYNSET_OP_ADD}}
}

// over is "limit rate over N/second burst N packets".
func over(perSecond uint32) rule {
	return rule{&expr.Limit{Type: expr.LimitTypePkts, Rate: uint64(perSecond), Unit: expr.LimitTimeSecond, Burst: perSecond, Over: true}}
}

// count is "counter name NAME".
func count(name string) rule {
	return rule{&expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: name}}
}

// ctTimeout is `ct timeout set "NAME"`.
func ctTimeout(name string) rule {
	return rule{&expr.Objref{Type: unix.NFT_OBJECT_CT_TIMEOUT, Name: name}}
}

// redirect is "redirect to :PORT".
func redirect(port uint16) rule {
	return rule{
		&expr.Immediate{Register: reg1, Data: binaryutil.BigEndian.PutUint16(port)},
		&expr.Redir{RegisterProtoMin: reg1},
	}
}

func verdict(kind expr.VerdictKind, chain string) rule {
	return rule{&expr.Verdict{Kind: kind, Chain: chain}}
}

func drop() rule             { return verdict(expr.VerdictDrop, "") }
func back() rule             { return verdict(expr.VerdictReturn, "") }
func goTo(chain string) rule { return verdict(expr.VerdictGoto, chain) }
func rejectReset() rule      { return rule{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}} }
func rejectProhibited() rule {
	return rule{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}}
}
