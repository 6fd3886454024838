package rbac

import "math/rand/v2"

// tree is an immutable ordered set: a treap whose insert and remove copy the
// path they touch and share the rest. A nil *tree is empty.
type tree[T any] struct {
	item        T
	priority    uint32
	left, right *tree[T]
}

// insert returns the set with item in place of any equal one.
func (t *tree[T]) insert(item T, compare func(a, b T) int) *tree[T] {
	return t.add(&tree[T]{item: item, priority: rand.Uint32()}, compare)
}

// add takes ownership of n, a single node.
func (t *tree[T]) add(n *tree[T], compare func(a, b T) int) *tree[T] {
	if t == nil {
		return n
	}
	root := *t
	switch c := compare(n.item, t.item); {
	case c == 0:
		root.item = n.item
	case c < 0:
		root.left = t.left.add(n, compare)
		if root.left.priority > root.priority {
			return root.rotateRight()
		}
	default:
		root.right = t.right.add(n, compare)
		if root.right.priority > root.priority {
			return root.rotateLeft()
		}
	}
	return &root
}

// rotateRight and rotateLeft may change the child in place: add has just made
// it, and nobody else holds it.
func (t tree[T]) rotateRight() *tree[T] {
	l := t.left
	t.left, l.right = l.right, &t
	return l
}

func (t tree[T]) rotateLeft() *tree[T] {
	r := t.right
	t.right, r.left = r.left, &t
	return r
}

// remove returns the set without the item equal to item.
func (t *tree[T]) remove(item T, compare func(a, b T) int) *tree[T] {
	if t == nil {
		return nil
	}
	c := compare(item, t.item)
	if c == 0 {
		return merge(t.left, t.right)
	}
	root := *t
	if c < 0 {
		root.left = t.left.remove(item, compare)
	} else {
		root.right = t.right.remove(item, compare)
	}
	return &root
}

// merge joins two sets, all of a before all of b.
func merge[T any](a, b *tree[T]) *tree[T] {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case a.priority > b.priority:
		root := *a
		root.right = merge(a.right, b)
		return &root
	default:
		root := *b
		root.left = merge(a, b.left)
		return &root
	}
}

// each calls yield in order until it returns false; it reports whether it
// reached the end.
func (t *tree[T]) each(yield func(T) bool) bool {
	return t == nil || t.left.each(yield) && yield(t.item) && t.right.each(yield)
}
