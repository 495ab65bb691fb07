package nft

import (
	"net/netip"
	"time"

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
	flagPSH = 0x08
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

// saddrNotIn is "ip saddr != @SET" or "ip6 saddr != @SET".
func saddrNotIn(f family, set *nftables.Set) rule { return of(saddr(f), notIn(set)) }

// saddrMasked is "ip6 saddr & MASK" in register 1.
func saddrMasked(f family, bits int) rule {
	return of(saddr(f), mask(netip.PrefixFrom(f.last, bits).Masked().Addr().AsSlice()))
}

// saddrIsFirst is "ip6 saddr & ~MASK == ::": the first address of its prefix,
// whose element would stand for all of the prefix.
func saddrIsFirst(f family, bits int) rule {
	host := netip.PrefixFrom(f.last, bits).Masked().Addr().AsSlice()
	for i := range host {
		host[i] = ^host[i]
	}
	return of(saddr(f), mask(host), rule{cmpEq(make([]byte, f.bytes))})
}

// mask is "& MASK" of what register 1 holds.
func mask(m []byte) rule {
	return rule{&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: uint32(len(m)), Mask: m, Xor: make([]byte, len(m))}}
}

// in looks register 1, and those behind it for a concatenation, up in a set.
func in(set *nftables.Set) rule {
	return rule{&expr.Lookup{SourceRegister: reg1, SetName: set.Name, SetID: set.ID}}
}

// notIn is in, turned round.
func notIn(set *nftables.Set) rule {
	return rule{&expr.Lookup{SourceRegister: reg1, SetName: set.Name, SetID: set.ID, Invert: true}}
}

// tcpDport is "tcp dport @SET".
func tcpDport(set *nftables.Set) rule {
	return of(l4proto(unix.IPPROTO_TCP), rule{dport(reg1)}, in(set))
}

// tcpDportIs is "tcp dport PORT".
func tcpDportIs(port uint16) rule {
	return of(l4proto(unix.IPPROTO_TCP), rule{dport(reg1), cmpEq(binaryutil.BigEndian.PutUint16(port))})
}

// udpDport is "udp dport @SET".
func udpDport(set *nftables.Set) rule {
	return of(l4proto(unix.IPPROTO_UDP), rule{dport(reg1)}, in(set))
}

// Offsets of the ports in the headers of TCP and UDP.
const srcPort, dstPort = 0, 2

// udpPortIn is "udp sport FIRST-LAST" or "udp dport FIRST-LAST".
func udpPortIn(offset uint32, r PortRange) rule {
	return of(l4proto(unix.IPPROTO_UDP), rule{
		port(reg1, offset),
		&expr.Cmp{Op: expr.CmpOpGte, Register: reg1, Data: binaryutil.BigEndian.PutUint16(r.First)},
		&expr.Cmp{Op: expr.CmpOpLte, Register: reg1, Data: binaryutil.BigEndian.PutUint16(r.Last)},
	})
}

func dport(register uint32) expr.Any { return port(register, dstPort) }

func port(register, offset uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2}
}

// service is "meta l4proto . th dport" in register 1 and the one after it.
func service() rule {
	return rule{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg1}, dport(reg32b)}
}

// opensConnection is "tcp flags & (fin | syn | rst | ack) OP syn": a packet
// that opens a TCP connection has SYN alone of these four.
func opensConnection(op expr.CmpOp) rule {
	return tcpFlags(flagFIN|flagSYN|flagRST|flagACK, op, flagSYN)
}

// opensNothing is "tcp flags & (rst | ack) == 0x0": every packet of a
// connection but the first has one of the two.
func opensNothing() rule { return tcpFlags(flagRST|flagACK, expr.CmpOpEq, 0) }

// pushes is "tcp flags & psh OP 0x0"; with != 0 a packet by which a program
// has sent something, and is done for now.
func pushes(op expr.CmpOp) rule { return tcpFlags(flagPSH, op, 0) }

func tcpFlags(which byte, op expr.CmpOp, value byte) rule {
	flags := &expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1}
	return of(l4proto(unix.IPPROTO_TCP), rule{flags}, mask([]byte{which}), rule{&expr.Cmp{Op: op, Register: reg1, Data: []byte{value}}})
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

// fromHost is "fib saddr type local".
func fromHost() rule {
	return rule{
		&expr.Fib{Register: reg1, FlagSADDR: true, ResultADDRTYPE: true},
		cmpEq(binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)),
	}
}

// fromElsewhere is "fib saddr . iif oif missing".
func fromElsewhere() rule {
	return rule{
		&expr.Fib{Register: reg1, FlagSADDR: true, FlagIIF: true, FlagPRESENT: true, ResultOIF: true},
		cmpEq(make([]byte, 4)),
	}
}

// notForHost is "meta pkttype != host": broadcasts and multicasts.
func notForHost() rule {
	return rule{&expr.Meta{Key: expr.MetaKeyPKTTYPE, Register: reg1}, cmpNeq([]byte{unix.PACKET_HOST})}
}

// reply is "ct direction reply ct state established,related".
func reply() rule {
	const directionReply = 1 // IP_CT_DIR_REPLY, include/uapi/linux/netfilter/nf_conntrack_tuple_common.h
	return of(rule{&expr.Ct{Key: expr.CtKeyDIRECTION, Register: reg1}, cmpEq([]byte{directionReply})},
		ctState(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED))
}

// ctState is "ct state" of some of the bits.
func ctState(bits uint32) rule { return ctBits(expr.CtKeySTATE, bits) }

// assured is "ct status assured": a TCP connection whose handshake is complete.
func assured() rule {
	const ipsAssured = 1 << 2 // IPS_ASSURED, include/uapi/linux/netfilter/nf_conntrack_common.h
	return ctBits(expr.CtKeySTATUS, ipsAssured)
}

func ctBits(key expr.CtKey, bits uint32) rule {
	return of(rule{&expr.Ct{Key: key, Register: reg1}}, mask(binaryutil.NativeEndian.PutUint32(bits)), rule{cmpNeq(make([]byte, 4))})
}

// icmpv6In is "icmpv6 type @SET".
func icmpv6In(set *nftables.Set) rule {
	typ := &expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1}
	return of(l4proto(unix.IPPROTO_ICMPV6), rule{typ}, in(set))
}

// add is "add @SET { what register 1 holds timeout TIMEOUT EXPRS }"; a timeout
// of 0 is the one of the set. On a set that is full it ends the rule.
func add(set *nftables.Set, timeout time.Duration, exprs ...expr.Any) rule {
	return dynset(unix.NFT_DYNSET_OP_ADD, set, timeout, exprs)
}

// update is add which begins the timeout anew.
func update(set *nftables.Set, timeout time.Duration) rule {
	return dynset(unix.NFT_DYNSET_OP_UPDATE, set, timeout, nil)
}

func dynset(op uint32, set *nftables.Set, timeout time.Duration, exprs []expr.Any) rule {
	return rule{&expr.Dynset{SrcRegKey: reg1, SetName: set.Name, SetID: set.ID, Operation: op, Timeout: timeout, Exprs: exprs}}
}

// over is "limit rate over N/second burst N packets".
func over(perSecond uint32) rule {
	return overBudget(Rate{int(perSecond), time.Second})
}

// overBudget is "limit rate over RATE burst N packets".
func overBudget(r Rate) rule {
	return rule{&expr.Limit{
		Type: expr.LimitTypePkts, Rate: uint64(r.Count), Unit: expr.LimitTime(r.Per / time.Second), Burst: uint32(r.Count), Over: true,
	}}
}

// atMostOnceASecond is "limit rate 1/second burst 1 packets".
func atMostOnceASecond() rule {
	return rule{&expr.Limit{Type: expr.LimitTypePkts, Rate: 1, Unit: expr.LimitTimeSecond, Burst: 1}}
}

// says is "log prefix WHAT group GROUP snaplen 128".
func says(what string, group uint16) rule {
	return rule{&expr.Log{
		Key:   1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_PREFIX | 1<<unix.NFTA_LOG_SNAPLEN,
		Group: group, Snaplen: snapLength, Data: []byte(what),
	}}
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
func jump(chain string) rule { return verdict(expr.VerdictJump, chain) }
func rejectReset() rule      { return rule{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}} }
func rejectProhibited() rule {
	return rule{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}}
}
