package listener

import (
	"bytes"
	"encoding/binary"
	"errors"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// NFLOG messages, include/uapi/linux/netfilter/nfnetlink_log.h.
const (
	nfulnlMsgPacket = netlink.HeaderType(unix.NFNL_SUBSYS_ULOG << 8)   // NFULNL_MSG_PACKET
	nfulnlMsgConfig = netlink.HeaderType(unix.NFNL_SUBSYS_ULOG<<8 | 1) // NFULNL_MSG_CONFIG

	// enum nfulnl_attr_type
	nfulaPacketHdr = 1  // NFULA_PACKET_HDR, a struct nfulnl_msg_packet_hdr
	nfulaPayload   = 9  // NFULA_PAYLOAD, the packet from its IP header on
	nfulaPrefix    = 10 // NFULA_PREFIX, with a NUL at its end

	// enum nfulnl_attr_config
	nfulaCfgCmd     = 1 // NFULA_CFG_CMD, a struct nfulnl_msg_config_cmd
	nfulaCfgMode    = 2 // NFULA_CFG_MODE, a struct nfulnl_msg_config_mode
	nfulaCfgTimeout = 4 // NFULA_CFG_TIMEOUT, in 1/100 s
	nfulaCfgQthresh = 5 // NFULA_CFG_QTHRESH, in messages

	nfulnlCfgCmdBind = 1 // NFULNL_CFG_CMD_BIND of enum nfulnl_msg_config_cmds
	nfulnlCopyPacket = 2 // NFULNL_COPY_PACKET

	// sizeofNfgenmsg is the size in bytes of a struct nfgenmsg, with which
	// messages begin: family, version and, in network order, the group;
	// include/uapi/linux/netfilter/nfnetlink.h.
	sizeofNfgenmsg = 4
)

// verdicts are what the log prefixes of our rules mean.
var verdicts = map[string]Verdict{
	"probe": Noticed,
	"peer":  Exempted,
	"block": Convicted,
	"full":  Crowded,
	"spent": Overspent,
}

var (
	errType      = errors.New("message is of another type")
	errShort     = errors.New("message is cut off")
	errAttribute = errors.New("attribute is longer or shorter than its message says")
	errPrefix    = errors.New("log prefix is of none of our rules")
)

// cutMessage cuts the first message off a datagram, with its type and data, as
// nlmsg_ok and nlmsg_next of include/net/netlink.h do. The rest of a datagram
// that does not begin with a message is one without type and data.
func cutMessage(b []byte) (m netlink.Message, rest []byte) {
	if len(b) < unix.NLMSG_HDRLEN {
		return m, nil
	}
	size := int(binary.NativeEndian.Uint32(b))
	if size < unix.NLMSG_HDRLEN || size > len(b) {
		return m, nil
	}
	m.Header.Type = netlink.HeaderType(binary.NativeEndian.Uint16(b[4:]))
	m.Data = b[unix.NLMSG_HDRLEN:size]
	return m, b[min(len(b), (size+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1)):]
}

// parseMessage reads the data of a message of type nfulnlMsgPacket, and keeps
// none of it. The event has its verdict even if the packet cannot be read.
func parseMessage(b []byte, now time.Time) (Event, error) {
	e := Event{Time: now, Evidence: Unproven}
	if len(b) < sizeofNfgenmsg {
		return e, errShort
	}
	var a attributes
	if err := a.parse(b[sizeofNfgenmsg:]); err != nil {
		return e, err
	}
	verdict, ok := verdicts[string(bytes.TrimSuffix(a.prefix, []byte{0}))]
	if !ok {
		return e, errPrefix
	}
	e.Verdict = verdict
	err := parsePacket(&e, a.etherType, a.payload)
	return e, err
}

// attributes are those that make an event.
type attributes struct {
	etherType       uint16 // the protocol of the packet, of include/uapi/linux/if_ether.h
	prefix, payload []byte
}

// parse walks over attributes as nla_for_each_attr of include/net/netlink.h
// does. Unlike netlink.AttributeDecoder it allocates nothing.
func (a *attributes) parse(b []byte) error {
	for len(b) >= unix.NLA_HDRLEN {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.NLA_HDRLEN || size > len(b) {
			return errAttribute
		}
		kind := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
		if err := a.set(kind, b[unix.NLA_HDRLEN:size]); err != nil {
			return err
		}
		b = b[min(len(b), (size+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1)):]
	}
	return nil
}

func (a *attributes) set(kind uint16, value []byte) error {
	switch kind {
	case nfulaPacketHdr:
		if len(value) < 2 {
			return errAttribute
		}
		a.etherType = binary.BigEndian.Uint16(value)
	case nfulaPrefix:
		a.prefix = value
	case nfulaPayload:
		a.payload = value
	}
	return nil
}

// configMessage binds a group and says how its messages are to come, all in
// one, so that none comes in another way.
func configMessage(group uint16) (netlink.Message, error) {
	ae := netlink.NewAttributeEncoder()
	ae.ByteOrder = binary.BigEndian
	ae.Uint8(nfulaCfgCmd, nfulnlCfgCmdBind)
	ae.Bytes(nfulaCfgMode, append(binary.BigEndian.AppendUint32(nil, copyRange), nfulnlCopyPacket, 0))
	ae.Uint32(nfulaCfgTimeout, uint32(flushAfter/(10*time.Millisecond)))
	ae.Uint32(nfulaCfgQthresh, batch)
	attrs, err := ae.Encode()
	return groupMessage(nfulnlMsgConfig, group, attrs), err
}

// groupMessage is a request to the kernel about a group.
func groupMessage(kind netlink.HeaderType, group uint16, attrs []byte) netlink.Message {
	head := binary.BigEndian.AppendUint16([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0}, group)
	return netlink.Message{
		Header: netlink.Header{Type: kind, Flags: netlink.Request | netlink.Acknowledge},
		Data:   append(head, attrs...),
	}
}
