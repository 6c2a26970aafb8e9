/* Sorting and filtering for the roll, and evidence opened for print. Everything is readable without this. */
(() => {
  'use strict'
  const table = document.getElementById('roll-table')
  const rankOf = { y: 0, k: 1, n: 2, u: 3 }

  const plural = (count) => `${count.toLocaleString('en')} ${count === 1 ? 'recipe' : 'recipes'}`

  if (table) {
    const body = table.tBodies[0]
    const rows = [...body.rows].map((row, index) => ({
      row, index, name: row.cells[0].textContent.toLowerCase(), is: (row.dataset.is || '').split(' '),
    }))
    const find = document.getElementById('roll-find')
    const show = document.getElementById('roll-show')
    const count = document.getElementById('roll-count')
    const openAll = document.getElementById('roll-open')

    const filter = () => {
      const wanted = find.value.trim().toLowerCase()
      let shown = 0
      for (const { row, name, is } of rows) {
        const visible = name.includes(wanted) && (show.value === 'all' || is.includes(show.value))
        if (row.hidden === visible) row.hidden = !visible
        shown += visible
      }
      count.value = shown === rows.length ? plural(rows.length) : `${shown.toLocaleString('en')} of ${plural(rows.length)}`
    }

    const rank = (column) => ({ row, name }) =>
      column === 0 ? name : rankOf[row.cells[column].className] ?? 9

    const sort = (head, column) => {
      const ascending = head.getAttribute('aria-sort') !== 'ascending'
      for (const other of table.tHead.rows[0].cells) other.removeAttribute('aria-sort')
      head.setAttribute('aria-sort', ascending ? 'ascending' : 'descending')
      const key = rank(column)
      const keyed = rows.map((one) => [key(one), one])
      keyed.sort(([a, one], [b, other]) => (a < b ? -1 : a > b ? 1 : one.index - other.index) * (ascending ? 1 : -1))
      body.append(...keyed.map(([, { row }]) => row))
    }

    for (const [column, head] of [...table.tHead.rows[0].cells].entries()) {
      const button = document.createElement('button')
      button.type = 'button'
      button.textContent = head.textContent
      button.addEventListener('click', () => sort(head, column))
      head.replaceChildren(button)
    }
    find.addEventListener('input', filter)
    show.addEventListener('change', filter)
    openAll.addEventListener('click', () => {
      const open = openAll.getAttribute('aria-pressed') !== 'true'
      openAll.setAttribute('aria-pressed', String(open))
      openAll.textContent = open ? 'Close all evidence' : 'Open all evidence'
      for (const one of body.querySelectorAll('details')) one.open = open
    })
    document.querySelector('#roll .tools').hidden = false
    filter()
  }

  /* Print everything: closed details are opened for the printer and closed again afterwards. */
  let opened = []
  window.addEventListener('beforeprint', () => {
    opened = [...document.querySelectorAll('details:not([open])')]
    for (const one of opened) one.open = true
  })
  window.addEventListener('afterprint', () => {
    for (const one of opened) one.open = false
    opened = []
  })
  window.addEventListener('hashchange', () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)))
    if (target instanceof HTMLDetailsElement) target.open = true
  })
})()
