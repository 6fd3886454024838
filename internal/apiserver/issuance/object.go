package issuance

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Resource is the resource of batches. It is not served. An encryption configuration may name it.
var Resource = schema.GroupResource{Group: "identity.lanyard.dev", Resource: "issuances"}

// Prefix is the directory of batches in etcd, below the directory of all objects.
const Prefix = "/identity.lanyard.dev/issuances"

// Object is a batch as it is stored. Only its name and its content are.
type Object struct {
	metav1.TypeMeta
	metav1.ObjectMeta
	// Content is an encoded ledger.Batch. It is not changed.
	Content []byte
}

// List is a list of batches.
type List struct {
	metav1.TypeMeta
	metav1.ListMeta
	Items []Object
}

var _, _ runtime.Object = &Object{}, &List{}

// NewObject returns an empty object.
func NewObject() runtime.Object { return &Object{} }

// NewList returns an empty list.
func NewList() runtime.Object { return &List{} }

// Size returns about how many bytes the object has.
func (o *Object) Size() int { return headerBytes + len(o.Name) + len(o.Content) }

// DeepCopyObject implements runtime.Object. The copy shares the content.
func (o *Object) DeepCopyObject() runtime.Object {
	made := &Object{TypeMeta: o.TypeMeta, Content: o.Content}
	o.ObjectMeta.DeepCopyInto(&made.ObjectMeta)
	return made
}

// DeepCopyObject implements runtime.Object. The copy shares the contents.
func (l *List) DeepCopyObject() runtime.Object {
	made := &List{TypeMeta: l.TypeMeta}
	l.ListMeta.DeepCopyInto(&made.ListMeta)
	for i := range l.Items {
		made.Items = append(made.Items, *l.Items[i].DeepCopyObject().(*Object))
	}
	return made
}

// Codec stores objects in a form of their own: a header, the length of the name in two bytes, the name, and the content.
type Codec struct{}

var _ runtime.Codec = Codec{}

const (
	header = "lanyard/1\n"
	// headerBytes is the length of what precedes the name.
	headerBytes = len(header) + 2
	// maxName and maxObject bound what is read. etcd stores no larger values than maxObject, unless it is configured to.
	maxName, maxObject = 253, 2 << 20
)

var errNoObject = errors.New("not a batch of issued credentials")

// Encode implements runtime.Encoder.
func (Codec) Encode(obj runtime.Object, w io.Writer) error {
	o, ok := obj.(*Object)
	if !ok {
		return fmt.Errorf("%w: %T", errNoObject, obj)
	}
	data := make([]byte, 0, o.Size())
	data = binary.BigEndian.AppendUint16(append(data, header...), uint16(len(o.Name)))
	_, err := w.Write(append(append(data, o.Name...), o.Content...))
	return err
}

// Identifier implements runtime.Encoder.
func (Codec) Identifier() runtime.Identifier { return "lanyard" }

// Decode implements runtime.Decoder. The object shares data. Watches pass a nil into.
func (Codec) Decode(data []byte, _ *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	o, ok := into.(*Object)
	if into == nil {
		o = &Object{}
	} else if !ok {
		return nil, nil, fmt.Errorf("%w: decoding into %T", errNoObject, into)
	}
	if len(data) < headerBytes || len(data) > maxObject || string(data[:len(header)]) != header {
		return nil, nil, errNoObject
	}
	length, rest := int(binary.BigEndian.Uint16(data[len(header):])), data[headerBytes:]
	if length == 0 || length > min(maxName, len(rest)) {
		return nil, nil, fmt.Errorf("%w: its name cannot be read", errNoObject)
	}
	*o = Object{Content: rest[length:]}
	o.Name = string(rest[:length])
	return o, nil, nil
}
