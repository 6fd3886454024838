package keyring

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"lanyard.dev/internal/signingkey/rotation"
)

// Resource names the stored keys in logs and metrics. It is not a resource of the API.
var Resource = schema.GroupResource{Group: "internal.lanyard.dev", Resource: "keyrings"}

const (
	// Prefix is the directory of the object in etcd, below that of all objects.
	Prefix = "/internal.lanyard.dev/keyrings"
	// name is the name of the only object.
	name = "signing-keys"
)

// NewObject and NewList return what the storage reads into.
func NewObject() runtime.Object { return &Object{} }

// NewList returns an empty list.
func NewList() runtime.Object { return &ObjectList{} }

// Object is the stored form of a ring.
type Object struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	// Ring is the encoding of a rotation.Ring. It is a secret.
	Ring []byte `json:"ring"`
}

// ObjectList is a list of objects, as the storage reads them.
type ObjectList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []Object `json:"items"`
}

// DeepCopyObject implements runtime.Object.
func (o *Object) DeepCopyObject() runtime.Object { return o.deepCopy() }

func (o *Object) deepCopy() *Object {
	return &Object{TypeMeta: o.TypeMeta, ObjectMeta: *o.ObjectMeta.DeepCopy(), Ring: bytes.Clone(o.Ring)}
}

// DeepCopyObject implements runtime.Object.
func (l *ObjectList) DeepCopyObject() runtime.Object {
	out := &ObjectList{TypeMeta: l.TypeMeta, ListMeta: *l.ListMeta.DeepCopy()}
	for i := range l.Items {
		out.Items = append(out.Items, *l.Items[i].deepCopy())
	}
	return out
}

// Codec encodes objects as JSON. The library logs the errors of a codec, and its own codecs quote what they cannot read: the errors
// of this one contain no data.
type Codec struct{}

var _ runtime.Codec = Codec{}

// maxObject is the limit for a stored object: the ring in base64, and metadata.
const maxObject = 2 * rotation.MaxSize

// Encode implements runtime.Encoder.
func (Codec) Encode(obj runtime.Object, w io.Writer) error {
	data, err := json.Marshal(obj)
	if err != nil {
		return errors.New("the signing keys cannot be encoded")
	}
	_, err = w.Write(data)
	return err
}

// Identifier implements runtime.Encoder.
func (Codec) Identifier() runtime.Identifier { return "keyring" }

// Decode implements runtime.Decoder. It reads into an *Object, and makes one if into is nil.
func (Codec) Decode(data []byte, _ *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	o, ok := into.(*Object)
	if into == nil {
		o, ok = &Object{}, true
	}
	if !ok || len(data) > maxObject || json.Unmarshal(data, o) != nil || o.Ring == nil {
		return nil, nil, rotation.ErrUnreadable
	}
	return o, nil, nil
}
