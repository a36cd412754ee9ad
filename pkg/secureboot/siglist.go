package secureboot

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
)

// x509List is the type of a list of certificates, EFI_CERT_X509_GUID
// {a5c059a1-94e4-4aa7-87b5-ab155c2bf072} in the byte order of the firmware.
var x509List = []byte{0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72}

var errList = errors.New("broken signature list")

// Sizes in an EFI_SIGNATURE_LIST (UEFI Specification, 32.4.1): the list's type,
// its size, the size of its own header, the size of each signature; and in
// front of each signature the GUID of its owner.
const (
	listHead  = 16 + 4 + 4 + 4
	ownerSize = 16
)

// ParseSignatureLists reads the certificates of a key database. Lists of hashes
// are passed over.
func ParseSignatureLists(data []byte) ([]Certificate, error) {
	certificates := []Certificate{}
	for len(data) > 0 {
		if len(data) < listHead {
			return nil, fmt.Errorf("%w: %d bytes are left over", errList, len(data))
		}
		size := uint64(binary.LittleEndian.Uint32(data[16:]))
		header := uint64(binary.LittleEndian.Uint32(data[20:]))
		each := uint64(binary.LittleEndian.Uint32(data[24:]))
		if size < listHead+header || size > uint64(len(data)) {
			return nil, fmt.Errorf("%w: size %d of %d bytes", errList, size, len(data))
		}
		if bytes.Equal(data[:16], x509List) {
			some, err := readCertificateList(data[listHead+header:size], each)
			if err != nil {
				return nil, err
			}
			certificates = append(certificates, some...)
		}
		data = data[size:]
	}
	return certificates, nil
}

func readCertificateList(body []byte, each uint64) ([]Certificate, error) {
	if each <= ownerSize || uint64(len(body))%each != 0 {
		return nil, fmt.Errorf("%w: %d bytes hold no whole number of signatures of %d", errList, len(body), each)
	}
	var certificates []Certificate
	for len(body) > 0 {
		c, err := x509.ParseCertificate(body[ownerSize:each])
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errList, err)
		}
		certificates = append(certificates, newCertificate(c))
		body = body[each:]
	}
	return certificates, nil
}
