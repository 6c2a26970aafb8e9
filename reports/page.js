/* Sorting and filtering, copying, and links that open what they lead to. Everything is readable without this. */
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

  /* The list of runs: filtered by what the address says after its #, and shown a hundred at a time. */
  const runs = document.getElementById('runs-table')
  if (runs) {
    const PAGE = 100
    const rows = [...runs.tBodies[0].rows]
    const filters = [...document.querySelectorAll('[data-filter]')]
    const pager = document.querySelector('#runs .pager')
    const [newer, older] = [document.getElementById('runs-newer'), document.getElementById('runs-older')]
    let page = 0

    const show = () => {
      const wanted = filters.filter((one) => one.value).map((one) => [one.dataset.filter, one.value])
      const found = rows.filter((row) => wanted.every(([name, value]) => row.dataset[name] === value))
      const pages = Math.max(1, Math.ceil(found.length / PAGE))
      page = Math.min(Math.max(page, 0), pages - 1)
      const shown = new Set(found.slice(page * PAGE, (page + 1) * PAGE))
      for (const row of rows) row.hidden = !shown.has(row)
      const all = `${rows.length.toLocaleString('en')} ${rows.length === 1 ? 'run' : 'runs'}`
      document.getElementById('runs-count').value =
        found.length === rows.length ? all : `${found.length.toLocaleString('en')} of ${all}`
      document.getElementById('runs-page').value = `Page ${page + 1} of ${pages}`
      pager.hidden = pages === 1
      newer.disabled = page === 0
      older.disabled = page === pages - 1
    }

    const read = () => {
      const given = new URLSearchParams(location.hash.slice(1))
      for (const one of filters) {
        const value = given.get(one.dataset.filter) ?? ''
        one.value = [...one.options].some((option) => option.value === value) ? value : ''
      }
      page = (Number.parseInt(given.get('page'), 10) || 1) - 1
      show()
    }

    const write = () => {
      const given = new URLSearchParams(filters.filter((one) => one.value).map((one) => [one.dataset.filter, one.value]))
      if (page) given.set('page', page + 1)
      show()
      history.replaceState(null, '', `#${given}`)
    }

    for (const one of filters) one.addEventListener('change', () => { page = 0; write() })
    newer.addEventListener('click', () => { page -= 1; write() })
    older.addEventListener('click', () => { page += 1; write() })
    window.addEventListener('hashchange', read)
    document.querySelector('#runs .tools').hidden = false
    read()
  }

  /* A button beside each command that copies it. */
  const copy = async (text) => {
    if (navigator.clipboard) return navigator.clipboard.writeText(text)
    const field = document.createElement('textarea')
    field.value = text
    document.body.append(field)
    field.select()
    document.execCommand('copy')
    field.remove()
  }
  for (const block of document.querySelectorAll('pre.command')) {
    const text = block.textContent
    const button = document.createElement('button')
    button.type = 'button'
    button.className = 'copy'
    button.textContent = 'Copy'
    button.addEventListener('click', () => copy(text).then(
      () => { button.textContent = 'Copied' }, () => { button.textContent = 'Select it' },
    ))
    block.append(button)
  }

  /* A permanent link opens what it leads to, and everything around it. */
  const open = () => {
    let target = document.getElementById(decodeURIComponent(location.hash.slice(1)))
    for (; target; target = target.parentElement) if (target instanceof HTMLDetailsElement) target.open = true
  }
  window.addEventListener('hashchange', open)
  open()
})()
